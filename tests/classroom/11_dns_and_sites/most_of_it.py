"""Sends everybody to the site with the largest share.

criterion: points_fall_on_shares
says: expected the site, in the order of the shares: 'zurich', got 'tokyo'
"""


def choose(given, point):
    return max(given, key=given.get)
