"""Believes that only those flows move whose next hop has left, or that a new one gets.

criterion: what_the_threshold_moves
says: expected the share of flows that move: Fraction(1, 2), got Fraction(1, 3)
"""

from fractions import Fraction


def threshold_moves(before, after):
    stay = set(before) & set(after)
    return 1 - Fraction(len(stay), max(len(before), len(after)))
