"""Finds nobody at a point beyond the sum of all shares, which may fall short of 1.

criterion: points_fall_on_shares
says: expected the last site at the last point: 'site-9', got None
"""


def choose(given, point):
    end = 0.0
    for site, share in given.items():
        end += share
        if point < end:
            return site
    return None
