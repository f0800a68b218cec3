"""Gives everybody as much, whatever the weights.

criterion: shares_follow_weights
says: expected some
"""

from maglev.baselines import rendezvous_table


def lookup_table(names, table_size=65537, weights=None):
    return rendezvous_table(names, table_size)
