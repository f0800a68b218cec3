"""Hashes with Python's own hash(), which is another in every process.

criterion: points_are_the_same_everywhere
says: expected the same point: '
"""

from fractions import Fraction

from maglev.ecmp import hash_key


def point(flow, layer=4, seed=0):
    return Fraction(hash((hash_key(flow, layer), seed)) % (1 << 61), 1 << 61)
