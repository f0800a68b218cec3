"""Lets everybody have equally many turns, and leaves the slots that remain to nobody.

criterion: turns_are_fair
says: got -1, which is nobody
"""

from maglev.hashing import permutation


def populate(offsets, skips, table_size, weights=None):
    lists = [permutation(offset, skip, table_size).tolist() for offset, skip in zip(offsets, skips, strict=True)]
    table = [-1] * table_size
    for _ in range(table_size // len(lists)):
        for backend, wishes in enumerate(lists):
            table[next(slot for slot in wishes if table[slot] < 0)] = backend
    return table
