"""Compares the largest share with the smallest.

criterion: over_provisioning_is_of_the_mean
says: the largest share is 3 of 4 slots: expected 0.5000, got 2.0000
"""

from maglev.comparison import slots_per_backend


def over_provisioning(table, backends):
    slots = slots_per_backend(table, backends)
    return slots.max() / max(1, slots.min()) - 1
