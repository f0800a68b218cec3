"""Writes every backend's whole list down before the first turn, and looks for the first free slot from its start.

criterion: large_table_in_time
says: is there a loop that does not end?
says: more than the 2 GB of memory
"""


def permutation(offset, skip, table_size):
    return [(offset + j * skip) % table_size for j in range(table_size)]


def populate(offsets, skips, table_size, weights=None):
    lists = [permutation(offset, skip, table_size) for offset, skip in zip(offsets, skips, strict=True)]
    table, left = [-1] * table_size, table_size
    while left:
        for backend, wishes in enumerate(lists[:left]):
            slot = next(slot for slot in wishes if table[slot] < 0)
            table[slot], left = backend, left - 1
    return table
