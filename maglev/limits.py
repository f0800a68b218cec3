"""A rate that may not be exceeded for long: a token bucket, whose clock is an argument."""

from __future__ import annotations


def most_at_once(per_s: float) -> float:
    """Returns how many things may happen at once after a rest: a second's, and one at least, unless none ever may."""
    return max(1.0, per_s) if per_s > 0 else 0.0


class Budget:
    """Lets `per_s` things happen a second, and as many at once."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._most = most_at_once(per_s)
        self._left = self._most
        self._last: float | None = None

    def take(self, now: float) -> bool:
        """Returns whether one more may happen at `now` (monotonic seconds), and counts it if so."""
        if self._last is not None:
            self._left = min(self._most, self._left + max(0.0, now - self._last) * self.per_s)
        self._last = now if self._last is None else max(self._last, now)
        if self._left < 1:
            return False
        self._left -= 1
        return True


class NewFlows:
    """The budgets of new flows of all VIPs that have a limit."""

    def __init__(self) -> None:
        self._budgets: dict[tuple[str, float], Budget] = {}

    def take(self, vip: str, per_s: float, now: float) -> bool:
        """Returns whether one more flow may come to a VIP that takes `per_s` of them, and counts it if so."""
        budget = self._budgets.get((vip, per_s))
        if budget is None:
            budget = self._budgets[vip, per_s] = Budget(per_s)
        return budget.take(now)
