"""Gives each backend all that it is due before the next has its turn.

criterion: table_1
says: expected B1 in slot 0, got B0
"""

from maglev.hashing import permutation


def populate(offsets, skips, table_size, weights=None):
    table = [-1] * table_size
    for backend, (offset, skip) in enumerate(zip(offsets, skips, strict=True)):
        due = table_size // len(offsets) + (backend < table_size % len(offsets))
        free = [slot for slot in permutation(offset, skip, table_size) if table[slot] < 0]
        for slot in free[:due]:
            table[slot] = backend
    return table
