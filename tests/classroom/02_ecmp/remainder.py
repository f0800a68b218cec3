"""Takes the remainder of a division, as of old, rather than intervals.

criterion: intervals_in_order
says: expected the next hop at
"""


def threshold(point, hops):
    return hops[int(point * (1 << 32)) % len(hops)]
