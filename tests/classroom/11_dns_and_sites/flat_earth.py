"""Takes the Earth for a plane, whose degrees are all as long.

criterion: distances
says: expected 6324 km, got
"""

import math


def distance_km(one, other):
    north, east = one.latitude - other.latitude, one.longitude - other.longitude
    return math.hypot(north, east) * 111.2
