"""Hands degrees to functions that take radians.

criterion: distances
says: expected 6324 km, got
"""

import math

from maglev.geo import EARTH_RADIUS_KM


def distance_km(one, other):
    up = math.sin((one.latitude - other.latitude) / 2) ** 2
    along = math.cos(one.latitude) * math.cos(other.latitude)
    chord = up + along * math.sin((one.longitude - other.longitude) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(max(0.0, min(1.0, chord))))
