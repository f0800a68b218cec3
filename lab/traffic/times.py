"""Many measured times in little memory: a histogram whose classes are 1 % wide, the shortest and longest exact.

Histograms of several clients add up, which quantiles would not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

CLASS_WIDTH = math.log(1.01)
SHARES = {"50%": 0.5, "90%": 0.9, "99%": 0.99, "max": 1.0}


class Times:
    """Times in seconds."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._longest_s = 0.0

    def add(self, seconds: float) -> None:
        """Enters a time; one of 0 or less counts as a nanosecond."""
        self._counts[math.floor(math.log(max(seconds, 1e-9)) / CLASS_WIDTH)] += 1
        self._longest_s = max(self._longest_s, seconds)

    def document(self) -> dict[str, Any]:
        """Returns what `merged` makes the times of again."""
        return {"counts": list(self._counts.copy().items()), "longest_s": self._longest_s}

    @classmethod
    def merged(cls, documents: Iterable[Mapping[str, Any]]) -> Times:
        """Returns the times of all these documents."""
        times = cls()
        for document in documents:
            times._counts.update(dict(document["counts"]))
            times._longest_s = max(times._longest_s, document["longest_s"])
        return times

    @property
    def count(self) -> int:
        """Returns how many times there are."""
        return self._counts.total()

    def quantiles_ms(self) -> dict[str, float]:
        """Returns the time that half of all do not exceed, that 90 % do not, 99 %, and the longest; nothing of none."""
        total = self._counts.total()
        return {name: round(self._quantile_s(share * total) * 1e3, 3) for name, share in SHARES.items() if total}

    def _quantile_s(self, rank: float) -> float:
        below = 0
        for number in sorted(self._counts):
            below += self._counts[number]
            if below >= rank - 1e-9:
                return min(self._longest_s, math.exp((number + 1) * CLASS_WIDTH))
        return self._longest_s
