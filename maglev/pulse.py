"""Whether packet threads still move: a forwarder that answers but forwards nothing must not be announced (§2.1).

Each packet thread counts how often it turns round, with packets or without. Pure; who asks says when it is.
"""

from __future__ import annotations

from collections.abc import Sequence

SILENCE_S = 0.5  # a packet thread that has nothing to do turns round several times meanwhile


class Pulse:
    """What packet threads had counted when they were last seen to move."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, float]] = []  # by thread: its count, and when that was new

    def stuck(self, beats: Sequence[int], now: float) -> list[int]:
        """Returns the numbers of the threads that have not moved for `SILENCE_S`, given all their counts at `now`."""
        before = self._seen if len(self._seen) == len(beats) else [(-1, now)] * len(beats)
        self._seen = [last if last[0] == beat else (beat, now) for beat, last in zip(beats, before, strict=True)]
        return [thread for thread, (_, moved) in enumerate(self._seen) if now - moved > SILENCE_S]
