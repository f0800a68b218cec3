"""Whose wish is taken gets the next free slot of the table, not the next of its own list.

criterion: table_1
says: expected B0 in slot 1, got B1
"""

from maglev.hashing import permutation


def populate(offsets, skips, table_size, weights=None):
    table, left = [-1] * table_size, table_size
    while left:
        for backend, offset in enumerate(offsets[:left]):
            slot = offset
            while table[slot] >= 0:
                slot = (slot + 1) % table_size
            table[slot], left = backend, left - 1
    return table
