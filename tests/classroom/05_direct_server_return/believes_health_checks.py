"""Finds nothing wrong, as health checks do.

criterion: finds_three_planted_faults
says: }, got set()
"""


def troubles_of(machine, vips, own):
    return frozenset()
