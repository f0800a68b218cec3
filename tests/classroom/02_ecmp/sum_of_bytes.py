"""Adds up the bytes of the key: ports that go up one by one lie side by side.

criterion: points_are_even
says: expected some 1,000 points in [0.
"""

from fractions import Fraction

from maglev.ecmp import hash_key


def point(flow, layer=4, seed=0):
    return Fraction((sum(hash_key(flow, layer)) + seed) % 1021, 1021)
