"""Several things done at once, whose results come in order; Ctrl-C ends all that runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import TypeVar

from .. import interrupts

T = TypeVar("T")
End = Callable[[], None]

MOST_AT_ONCE = 2  # a lab keeps a core busy, and some criteria are about time
LOOK_EVERY_S = 0.5


def cores() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class Running:
    """What runs now, by how it is ended: all of it together, and nothing begins afterwards."""

    def __init__(self) -> None:
        self._ends, self._over, self._lock = set[End](), False, threading.Lock()

    def add(self, end: End) -> None:
        """Notes down what has begun; what comes too late ends at once."""
        with self._lock:
            self._ends.add(end)
            if self._over:
                end()

    def remove(self, end: End) -> None:
        """Forgets what has ended."""
        with self._lock:
            self._ends.discard(end)

    def end(self) -> None:
        """Ends everything, and does not wait for it."""
        with self._lock:
            self._over = True
            for end in self._ends:
                end()


def in_order(
    things: Sequence[Callable[[], T]], running: Running, waiting: Callable[[int, float], None] = lambda which, s: None
) -> Iterator[T]:
    """Does things, two at a time where there are two processors, and yields their results in order.

    `waiting` is told which of them is waited for, and for how many seconds it has been already, now and then.
    """
    pool = ThreadPoolExecutor(min(MOST_AT_ONCE, cores()))
    try:
        futures = [pool.submit(thing) for thing in things]
        for which, future in enumerate(futures):
            yield _awaited(future, lambda seconds, which=which: waiting(which, seconds))
    except BaseException:
        running.end()
        raise
    finally:
        with interrupts.passed_over():
            pool.shutdown(cancel_futures=True)


def _awaited(future: Future[T], waiting: Callable[[float], None]) -> T:
    began = time.monotonic()
    while True:
        try:
            return future.result(LOOK_EVERY_S)
        except NotYet:
            if future.done():  # its own error, of the same kind
                raise
            waiting(time.monotonic() - began)
