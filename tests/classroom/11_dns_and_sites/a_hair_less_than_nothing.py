"""Takes the root of what rounding has brought below 0.

criterion: distances
says: ValueError
"""

import math

from maglev.geo import EARTH_RADIUS_KM


def distance_km(one, other):
    north, south = math.radians(one.latitude), math.radians(other.latitude)
    half = math.radians(one.longitude - other.longitude) / 2
    chord = math.sin((north - south) / 2) ** 2 + math.cos(north) * math.cos(south) * math.sin(half) ** 2
    return 2 * EARTH_RADIUS_KM * math.atan2(math.sqrt(chord), math.sqrt(1 - chord))
