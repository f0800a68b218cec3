"""When something is due that happens at a rate. Time is an argument.

After a pause of the machine nothing is caught up with: a burst would be another kind of load than what was asked for.
So what was sent may be less than what was asked, and both are reported.
"""

from __future__ import annotations

import math

MOST_BEHIND_S = 0.01
ROUNDING = 1e-6  # of a packet: what is due now is not due a moment later for the sake of a rounded number
SHORTEST_REST_S = 0.0005


class Pace:
    """`rate` a second for `seconds`, from `now` on."""

    def __init__(self, rate: float, seconds: float, now: float) -> None:
        self._rate, self._began, self._seconds = rate, now, seconds
        self._next = 0  # of all that are asked for, the one that is due next
        self._base = now  # when the first was due, or would have been but for pauses
        self.total = round(rate * seconds)

    def due(self, now: float) -> int:
        """Returns how many are due and were not before."""
        late_s = now - self._next_at
        self._base += max(0.0, late_s - max(MOST_BEHIND_S, 1 / self._rate))
        due = math.floor((now - self._base) * self._rate + ROUNDING) + 1
        number = max(0, min(due, self.total) - self._next)
        self._next += number
        return number

    @property
    def _next_at(self) -> float:
        return self._base + self._next / self._rate

    def asked(self, now: float) -> int:
        """Returns how many rate and time come to."""
        return min(self.total, int((now - self._began) * self._rate) + 1)

    def over(self, now: float) -> bool:
        """Says whether nothing more will be due: what is a little late still is."""
        return self._next >= self.total or now - self._began >= self._seconds + MOST_BEHIND_S

    def rest_s(self, now: float) -> float:
        """Returns how long to rest until the next is due; a little, if one is due already."""
        return max(SHORTEST_REST_S, self._next_at - now)
