"""Takes weights, and lets everybody have as many turns as before.

criterion: weight_zero_gets_nothing
says: expected table 1 without B1: [0, 0, 0, 0, 2, 2, 2], got [1, 0, 1, 0, 2, 2, 0]
"""

import maglev.hashing


def populate(offsets, skips, table_size, weights=None):
    return maglev.hashing.populate(offsets, skips, table_size)
