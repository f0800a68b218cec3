"""Counts the slots of an endpoint that died among those that changed: its connections are doomed, and broken as well.

criterion: the_dead_are_counted_apart
says: breaks, got
"""

import numpy as np

from maglev.persistence import Shares, counted, fate, recorded_share


def expected(before, after, dead, moved, recorded):
    before, after = np.asarray(before), np.asarray(after)
    changed = (before != after).mean()
    return Shares(changed * (1 - recorded * (1 - moved)), np.isin(before, list(dead)).mean())
