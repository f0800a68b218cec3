"""Counts every connection that is not alive in the end, one that was refused at the beginning too.

criterion: only_who_lived_can_break
says: expected who lived, who broke, and who was doomed: (4, 2, 0)
"""

from maglev.persistence import Counts, expected, fate, recorded_share


def counted(before, after, dead):
    lived = [held for held in before if held.fate == "alive"]
    doomed = [held for held in lived if held.endpoint in dead]
    ended = [held for held in after if held.fate != "alive"]
    return Counts(len(lived), len(ended) - len(doomed), len(doomed))
