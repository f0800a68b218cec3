"""Faults by schedule: each at its time, each undone in its time, in the background.

A schedule is a list of (when, what, for how long): `(2.0, lambda lab: lab.kill("m1"), 3.0)` kills m1 two seconds after
the schedule has begun, and revives it three seconds later. Without a duration a fault stays until the schedule ends.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import LabError, NotInTime, WrongUse
from .fault import Fault
from .repeating import Repeating

if TYPE_CHECKING:
    from ..laboratory import Lab

UNDO, ACT = 0, 1  # of two steps at the same time the one that undoes comes first


@dataclass(frozen=True)
class Entry:
    """Something to do, when, and for how long, in seconds."""

    at_s: float
    act: Callable[[Lab], Any]
    for_s: float | None = None


def entries(plan: Iterable[Entry | Sequence[Any]]) -> list[Entry]:
    """Returns a schedule's entries in the order of their times; WrongUse for what is none."""
    found = []
    for each in plan:
        if not isinstance(each, Entry):
            if not 2 <= len(each) <= 3:
                raise WrongUse(f"{each!r} is no entry of a schedule; allowed: (when, what), (when, what, how long)")
            each = Entry(*each)
        if not callable(each.act):
            raise WrongUse(f"{each.act!r} cannot be done; allowed: a function of a lab")
        for name, value in (("when", each.at_s), ("how long", each.for_s)):
            if value is not None and not 0 <= value < float("inf"):
                raise WrongUse(f"{name} {value!r} is not allowed; allowed: seconds from 0 on")
        found.append(each)
    return sorted(found, key=lambda entry: entry.at_s)


class Schedule:
    """A schedule that runs; a context manager, at whose end it is over and all its faults are undone."""

    def __init__(self, lab: Lab, plan: Iterable[Entry | Sequence[Any]], name: str = "schedule") -> None:
        self._lab = lab
        self._entries = entries(plan)
        self._open: list[Fault] = []
        self._running = Repeating(name, self._steps)

    @property
    def repeating(self) -> Repeating:
        """Returns what runs in the background."""
        return self._running

    def _steps(self) -> Iterator[float]:
        began, number = time.monotonic(), count()
        todo: list[tuple[float, int, int, Any]] = [(each.at_s, ACT, next(number), each) for each in self._entries]
        heapq.heapify(todo)
        while todo:
            at_s, kind, _, what = todo[0]
            if (left := began + at_s - time.monotonic()) > 0:
                yield left
                continue
            heapq.heappop(todo)
            if kind == UNDO:
                what.undo()
            elif isinstance(fault := what.act(self._lab), Fault):
                self._open.append(fault)
                if what.for_s is not None:
                    heapq.heappush(todo, (time.monotonic() - began + what.for_s, UNDO, next(number), fault))
            yield 0.0

    def wait(self, timeout_s: float | None = None) -> None:
        """Waits until all has been done; raises what went wrong, NotInTime after `timeout_s`."""
        if not self._running.wait(timeout_s):
            raise NotInTime(f"the schedule was not over within {timeout_s:g} s")
        if self._running.error is not None:
            raise self._running.error

    def stop(self) -> None:
        """Does no more of it, and undoes the faults that are open, newest first; raises what went wrong."""
        self._running.end()
        while self._open:
            self._open.pop().undo()
        if self._running.error is not None:
            error, self._running.error = self._running.error, None
            raise error

    def __enter__(self) -> Schedule:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except LabError:
            if error is None:  # else that one is told
                raise
