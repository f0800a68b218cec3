"""Expects of a resilient table what the hash threshold moves.

criterion: what_either_router_moves
says: expected by a resilient table: Fraction(
"""

from maglev.ecmp import resilient_moves, threshold_moves


def expected_moves(before, after, buckets=None):
    return threshold_moves(before, after)
