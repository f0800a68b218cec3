"""The twin of `maglev.limits`: a budget of new flows for each VIP, kept when VIPs are exchanged."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiled import fast, inlined
from .vips import FastMap

Array = np.ndarray[Any, Any]

LEFT, LAST = range(2)  # columns of budgets, float64: new flows that may still come, and when the last was asked for
NEVER = -1.0


@inlined
def take(budgets: Array, vip: int, per_s: float, now: float) -> bool:
    """Returns whether one more flow may come to a VIP at `now` (seconds), and counts it if so."""
    left, last = budgets[vip, LEFT], budgets[vip, LAST]
    if last != NEVER:
        left = min(max(1.0, per_s), left + max(0.0, now - last) * per_s)
    budgets[vip, LAST] = now if last == NEVER else max(last, now)
    if left < 1:
        budgets[vip, LEFT] = left
        return False
    budgets[vip, LEFT] = left - 1
    return True


@fast
def take_at(budgets: Array, vip: int, per_s: float, now: float) -> bool:
    """Does what `take` does."""
    return take(budgets, vip, per_s, now)


class Budgets:
    """What is left of all VIPs' budgets, by name: of one packet thread."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._limits: Array = np.zeros(0)
        self.array: Array = np.zeros((0, 2))
        self._left: dict[tuple[str, float], Array] = {}

    def take(self, vip: str, per_s: float, now: float) -> bool:
        """Does what `maglev.limits.NewFlows.take` does, out of the same budgets as compiled code."""
        return bool(take_at(self.array, self._names.index(vip), per_s, now))

    def exchange(self, served: FastMap) -> Array:
        """Returns budgets, float64 (VIPs, 2), for the VIPs that are served from now on."""
        for name, limit, row in zip(self._names, self._limits.tolist(), self.array, strict=True):
            self._left[name, limit] = row.copy()
        self._names, self._limits = served.names, served.tables.limits
        fresh = [np.array([max(1.0, limit), NEVER]) for limit in self._limits.tolist()]
        rows = [
            self._left.get((name, limit), new)
            for name, limit, new in zip(self._names, self._limits.tolist(), fresh, strict=True)
        ]
        self.array = np.array(rows, np.float64).reshape(-1, 2)
        return self.array
