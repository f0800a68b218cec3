"""Looks for the doomed among the connections as they are afterwards, when some no longer say whose they were.

criterion: doomed_is_not_broken
says: expected who lived, who broke, and who was doomed
"""

from maglev.persistence import Counts, expected, fate, recorded_share


def counted(before, after, dead):
    lived = {held.name for held in before if held.fate == "alive"}
    doomed = {held.name for held in after if held.name in lived and held.endpoint in dead}
    ended = {held.name for held in after if held.name in lived and held.fate != "alive"}
    return Counts(len(lived), len(ended - doomed), len(doomed))
