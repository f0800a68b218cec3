"""Sends clients away whom no site has room for.

criterion: nobody_is_turned_away
says: expected the shares: {'new-york': 1.0}, got {}
"""

from maglev.geo import taken


def shares(nearest_first, loads, limits):
    result, rest = {}, 1.0
    for site in nearest_first:
        result[site] = rest * taken(loads.get(site, 0.0), limits)
        rest -= result[site]
    return {site: share for site, share in result.items() if share > 0}
