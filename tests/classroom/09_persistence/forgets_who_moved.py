"""Believes in the connection table wherever a connection comes to, as if Maglevs shared theirs.

criterion: live_a_drain_and_a_crash
says: predicted that 0.00 % of 200 break
"""

import numpy as np

from maglev.persistence import Shares, counted, fate, recorded_share


def expected(before, after, dead, moved, recorded):
    before, after = np.asarray(before), np.asarray(after)
    doomed = np.isin(before, list(dead))
    changed = ((before != after) & ~doomed).mean()
    return Shares(float(changed * (1 - recorded)), float(doomed.mean()))
