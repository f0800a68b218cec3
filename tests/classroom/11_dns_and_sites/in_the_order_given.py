"""Leaves sites that are as far away in the order in which they were given.

criterion: the_nearest_first
says: expected sites at the same place in the order of their names
"""

from maglev.geo import distance_km


def by_distance(place, sites):
    return [name for name, _ in sorted(sites, key=lambda site: distance_km(place, site[1]))]
