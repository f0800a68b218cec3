"""Takes a connection for safe if it was recorded or stays where it is, though it takes both.

criterion: shares_multiply
says: were recorded: expected that the share
"""

import numpy as np

from maglev.persistence import Shares, counted, fate, recorded_share


def expected(before, after, dead, moved, recorded):
    before, after = np.asarray(before), np.asarray(after)
    doomed = np.isin(before, list(dead))
    changed = ((before != after) & ~doomed).mean()
    return Shares(changed * (1 - recorded) * moved, doomed.mean())
