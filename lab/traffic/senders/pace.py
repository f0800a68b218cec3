"""When something is due that happens at a rate. Time is an argument.

After a pause of the machine nothing is caught up with: a burst would be another kind of load than what was asked for.
So what was sent may be less than what was asked, and both are reported.
"""

from __future__ import annotations

MOST_BEHIND_S = 0.01
SHORTEST_REST_S = 0.0005


class Pace:
    """`rate` a second for `seconds`, from `now` on."""

    def __init__(self, rate: float, seconds: float, now: float) -> None:
        self._rate, self._began, self._seconds = rate, now, seconds
        self._next = 0  # of all that are asked for, the one that is due next
        self._next_at = now
        self.total = round(rate * seconds)

    def due(self, now: float) -> int:
        """Returns how many are due and were not before."""
        step = 1 / self._rate
        self._next_at = max(self._next_at, now - max(MOST_BEHIND_S, step))
        number = 0 if now < self._next_at else int((now - self._next_at) * self._rate) + 1
        number = min(number, self.total - self._next)
        self._next_at += number * step
        self._next += number
        return number

    def asked(self, now: float) -> int:
        """Returns how many rate and time come to."""
        return min(self.total, int((now - self._began) * self._rate) + 1)

    def over(self, now: float) -> bool:
        """Says whether nothing more will be due."""
        return self._next >= self.total or now - self._began >= self._seconds

    def rest_s(self, now: float) -> float:
        """Returns how long to rest until the next is due; a little, if one is due already."""
        return max(SHORTEST_REST_S, self._next_at - now)
