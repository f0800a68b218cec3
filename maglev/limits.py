"""A rate that may not be exceeded for long: a token bucket, whose clock is an argument."""

from __future__ import annotations


class Budget:
    """Lets `per_s` things happen a second, and up to `burst` at once; nothing ever, if `per_s` is 0."""

    def __init__(self, per_s: float, burst: float | None = None) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s if burst is None else burst) if per_s > 0 else 0.0
        self._left = self._most
        self._last: float | None = None

    def take(self, now: float) -> bool:
        """Returns whether one more may happen at `now` (monotonic seconds), and counts it if so."""
        if self._last is not None:
            self._left = min(self._most, self._left + max(0.0, now - self._last) * self._per_s)
        self._last = now if self._last is None else max(self._last, now)
        if self._left < 1:
            return False
        self._left -= 1
        return True
