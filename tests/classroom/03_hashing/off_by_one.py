"""Begins a permutation with its second slot.

criterion: permutation_in_order
says: expected all slots, each as far from the last as skip: [3, 0, 4, 1, 5, 2, 6], got [0, 4, 1, 5, 2, 6, 3]
"""

from maglev.hashing import lookup_table, populate


def permutation(offset, skip, table_size):
    return [(offset + j * skip) % table_size for j in range(1, table_size + 1)]
