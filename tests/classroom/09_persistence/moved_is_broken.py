"""Believes that whoever comes to another Maglev is lost, as if Maglevs did not choose alike.

criterion: a_maglev_alone_breaks_nothing
says: 0 of 13 slots change
"""

from maglev import persistence
from maglev.persistence import Shares, counted, fate, recorded_share


def expected(before, after, dead, moved, recorded):
    return Shares(moved, persistence.expected(before, after, dead, moved, recorded).doomed)
