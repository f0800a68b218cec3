"""Gives each site its share of all clients, not of those that nearer ones have left.

criterion: what_is_left_goes_on
says: expected the shares
"""

from maglev.geo import taken


def shares(nearest_first, loads, limits):
    result = {site: taken(loads.get(site, 0.0), limits) for site in nearest_first}
    total = sum(result.values())
    return {site: share / total for site, share in result.items() if share > 0}
