"""Frames on their way over a bad link: which are lost, and when each of the others comes out. Pure.

What netem does, in its order: loss, duplicates, corruption, then delay; a rate has each frame wait for those before it.
"""

from __future__ import annotations

import heapq
import random

from .impairment import LIMIT_FRAMES, Impairment, frame_seconds

ETHERNET_BYTES = 14


class HeldFrames:
    """One direction of a link; the same seed does the same to the same frames. Times are monotonic seconds."""

    def __init__(self, impairment: Impairment, seed: int) -> None:
        self._is = impairment
        self._random = random.Random(seed)
        self._held: list[tuple[float, int, bytes]] = []  # a heap: when it is due, its number, the frame
        self._number = 0
        self._line_free = 0.0  # when the last frame has been sent, at the rate
        self.dropped = 0  # because too many were on their way

    def put(self, frame: bytes, now: float) -> None:
        """Takes in a frame that has come at `now`."""
        if self._happens(self._is.loss):
            return
        for _ in range(1 + self._happens(self._is.duplicate)):
            if len(self._held) >= LIMIT_FRAMES:
                self.dropped += 1
                return
            sent = self._corrupted(frame) if self._happens(self._is.corrupt) else frame
            self._number += 1
            heapq.heappush(self._held, (self._due(len(frame), now), self._number, sent))

    def due(self, now: float) -> list[bytes]:
        """Returns the frames that come out by `now`, in order."""
        frames = []
        while self._held and self._held[0][0] <= now:
            frames.append(heapq.heappop(self._held)[2])
        return frames

    @property
    def next_due(self) -> float | None:
        """Returns when the next frame comes out, None if none is on its way."""
        return self._held[0][0] if self._held else None

    def _happens(self, per_cent: float) -> bool:
        return per_cent > 0 and self._random.random() * 100 < per_cent

    def _due(self, frame_bytes: int, now: float) -> float:
        if self._is.rate_mbit:
            now = self._line_free = max(now, self._line_free) + frame_seconds(frame_bytes, self._is.rate_mbit)
        if self._happens(self._is.reorder):
            return now
        delay_ms = self._is.delay_ms
        if self._is.jitter_ms:
            delay_ms += self._random.uniform(-self._is.jitter_ms, self._is.jitter_ms)
        return now + max(0.0, delay_ms) / 1e3

    def _corrupted(self, frame: bytes) -> bytes:
        """Returns a frame with one bit turned, behind its Ethernet header, so that it still arrives."""
        if len(frame) <= ETHERNET_BYTES:
            return frame
        turned = bytearray(frame)
        turned[self._random.randrange(ETHERNET_BYTES, len(frame))] ^= 1 << self._random.randrange(8)
        return bytes(turned)
