"""A fault: something that was done to a lab, what should follow from it, and how it is undone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..timeline import Timeline
from .effect import NO_EFFECT, Effect


def nothing() -> None:
    """What undoes a fault that is over when it has happened."""


class Fault:
    """A fault that has happened to a node or a link, until it is undone; the timeline has both.

    `do` makes it happen. What should follow is expected from just before that until it has been undone, so that
    whoever watches meanwhile is never surprised.
    """

    def __init__(
        self,
        timeline: Timeline,
        what: str,
        where: str,
        undo: Callable[[], object] = nothing,
        effect: Effect = NO_EFFECT,
        on_end: Callable[[Fault], None] = lambda fault: None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        self.what, self.where, self.effect, self.detail = what, where, effect, detail or {}
        self._timeline, self._on_end = timeline, on_end
        self._undo: Callable[[], object] | None = undo
        self._once = threading.Lock()

    def happened(self) -> Fault:
        """Enters the fault in the timeline, now that it has happened."""
        self.event = self._timeline.happened("fault", self.what, self.where, **self.detail)
        return self

    def undo(self) -> None:
        """Makes good what was done; a second time does nothing."""
        with self._once:
            undo, self._undo = self._undo, None
        if undo is None:
            return
        try:
            undo()
        finally:
            self._on_end(self)
        self._timeline.happened("undone", self.what, self.where)

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __str__(self) -> str:
        return f"{self.what} {self.where}".rstrip()
