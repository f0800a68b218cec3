"""The faults that are open, what they should lead to, and how they are all undone: what all parts of `Lab` share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import maglev.config

from ..errors import WrongUse
from ..timeline import Timeline
from .effect import NO_EFFECT, Effect, together
from .fault import Fault, nothing
from .repeating import Repeating

CONVERGE_TIMEOUT_S = 20.0


class Registry:
    """The open faults of a `Lab`. Threads may use it: a schedule does, while others watch."""

    timeline: Timeline
    document: dict[str, Any]
    config: maglev.config.Config

    if TYPE_CHECKING:  # what `Lab` has

        @property
        def net(self) -> Any: ...
        @property
        def directory(self) -> Path: ...
        @property
        def maglevs(self) -> list[str]: ...
        @property
        def endpoints(self) -> list[str]: ...
        def node(self, name: str, *roles: str) -> Any: ...
        def _of_role(self, role: str) -> list[Any]: ...
        def _validated(self, document: dict[str, Any]) -> maglev.config.Config: ...
        def wait_converged(self, timeout_s: float = CONVERGE_TIMEOUT_S) -> float: ...
        def drain(self, name: str) -> Fault: ...
        def _end_traffic(self) -> None: ...
        def write_config(self, document: Mapping[str, Any]) -> None: ...
        def state_of(self, name: str) -> str: ...

    def _begin_registry(self) -> None:
        self._faults: list[Fault] = []  # those that are open, in the order in which they began
        self._repeating: list[Repeating] = []  # what goes on in the background
        self._listing = threading.Lock()
        self._changed_at = time.monotonic()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Returns the faults that are open, oldest first."""
        with self._listing:
            return tuple(self._faults)

    @property
    def expected(self) -> Effect:
        """Returns what all open faults should lead to, together."""
        return together(fault.effect for fault in self.faults)

    def restore(self) -> None:
        """Undoes every fault that still is, newest first, ends traffic that still runs, and waits until all is well."""
        self._end_background()
        self._end_traffic()
        while open_faults := self.faults:
            open_faults[-1].undo()
        self.wait_converged()

    def _fault(
        self,
        what: str,
        where: str,
        undo: Callable[[], object] = nothing,
        *,
        do: Callable[[], object] = nothing,
        effect: Effect = NO_EFFECT,
        **detail: Any,
    ) -> Fault:
        """Makes a fault happen, and returns it, open; if it cannot be made to happen, it has never been there."""
        fault = Fault(self.timeline, what, where, undo, effect, self._ended, detail)
        with self._listing:
            self._faults.append(fault)
        began = time.monotonic()
        try:
            do()
        except BaseException:
            self._ended(fault)
            raise
        fault.detail["took_s"] = round(time.monotonic() - began, 6)
        self._changed()
        return fault.happened()

    def _over(
        self, what: str, where: str, do: Callable[[], object], effect: Effect = NO_EFFECT, **detail: Any
    ) -> Fault:
        """Makes a fault happen that leaves nothing to undo, and returns it, closed; `effect` holds meanwhile."""
        fault = self._fault(what, where, do=do, effect=effect, **detail)
        fault.undo()
        return fault

    def _ended(self, fault: Fault) -> None:
        with self._listing:
            self._faults = [each for each in self._faults if each is not fault]
        self._changed()

    def _changed(self) -> None:
        self._changed_at = time.monotonic()

    def _newest(self, where: str, kinds: Collection[str]) -> Fault | None:
        """Returns the newest open fault of some kinds at a node or link."""
        return next((fault for fault in reversed(self.faults) if fault.where == where and fault.what in kinds), None)

    def _places_of(self, kinds: Collection[str]) -> list[str]:
        return sorted({fault.where for fault in self.faults if fault.what in kinds})

    def _undo_newest(self, where: str, kinds: Collection[str], participle: str) -> None:
        """Undoes the newest fault of some kinds; WrongUse, naming where there are some, if there is none here."""
        fault = self._newest(where, kinds)
        if fault is None:
            there = ", ".join(self._places_of(kinds)) or "none"
            raise WrongUse(f"{where} is not {participle}; {participle} are {there}")
        fault.undo()

    def _repeat(self, what: Repeating) -> Repeating:
        self._repeating = [each for each in self._repeating if each.goes_on] + [what]
        what.start()
        return what

    def _end_background(self) -> None:
        """Ends what goes on in the background; faults stay as they are."""
        running, self._repeating = self._repeating, []
        for each in running:
            each.end()
