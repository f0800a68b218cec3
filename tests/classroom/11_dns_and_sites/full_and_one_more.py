"""Divides by the width of the slope, even where it is a cliff.

criterion: a_site_takes_ever_fewer
says: ZeroDivisionError
"""


def taken(load, limits):
    return min(1.0, max(0.0, (limits.full_at - load) / (limits.full_at - limits.spill_from)))
