"""Asks whether the backend after the change has gone, which none has.

criterion: disruption_of_others
says: 1 of others' slots have changed, of 7: expected 0.1429, got
"""

import numpy as np

from maglev.comparison import Disruption


def disruption(before, after, gone):
    changed = np.asarray(before) != np.asarray(after)
    return Disruption(changed.mean(), (changed & ~np.isin(after, gone)).mean())
