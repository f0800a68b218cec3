"""A fault: something that was done to a lab, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..timeline import Timeline


class Fault:
    """A fault that has happened to a node or a link, until it is undone; the timeline has both."""

    def __init__(self, timeline: Timeline, what: str, where: str, undo: Callable[[], None], **detail: Any) -> None:
        self.what, self.where = what, where
        self._timeline = timeline
        self._undo: Callable[[], None] | None = undo
        self.event = timeline.happened("fault", what, where, **detail)

    def undo(self) -> None:
        """Makes good what was done; a second time does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()
            self._timeline.happened("undone", self.what, self.where)

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __str__(self) -> str:
        return f"{self.what} {self.where}"
