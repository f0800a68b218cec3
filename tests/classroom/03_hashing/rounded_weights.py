"""Takes weights for whole numbers of turns a round: half a turn is none.

criterion: weights_are_shares
says: has weight 0.5 of
"""

import maglev.hashing


def populate(offsets, skips, table_size, weights=None):
    return maglev.hashing.populate(offsets, skips, table_size, weights and [int(weight) for weight in weights])
