"""What all traffic has in common: a handle that stops it, waits for its end, and reports what came of it."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import LabError, WrongUse
from ..timeline import Timeline
from ..waiting import wait_until
from .worker import Worker, Workers

if TYPE_CHECKING:
    from ..nodes import LabNode

POLL_S = 0.05  # a sender that is asked too often sends less
GRACE_S = 15.0  # what a wait allows beyond the time that the traffic itself takes: for answers, and a busy machine
LONGEST_S = 3600.0
SENDERS = "lab.traffic.senders"


@dataclass(frozen=True)
class Report:
    """What came of some traffic; what is counted (packets, datagrams, requests, connections, bytes) its kind says."""

    asked: int | None  # what rate and time come to so far; None where a program sends as much as it can
    sent: int
    received: int  # answers
    seconds: float  # that it has been going on
    finished: bool  # nothing is sent any more, nothing waited for


R = TypeVar("R", bound=Report)


class Handle(ABC, Generic[R]):
    """Traffic that has begun; a context manager that stops it. `what` names it on the timeline."""

    def __init__(self, timeline: Timeline, what: str, where: str, most_s: float, **detail: Any) -> None:
        self.what, self.where = what, where
        self._timeline, self._most_s = timeline, most_s
        self._over = False
        self._ending = threading.Lock()
        timeline.happened("traffic", what, where, **detail)

    @abstractmethod
    def report(self) -> R:
        """Returns what came of it so far, or in the end."""

    @abstractmethod
    def _end(self) -> None:
        """Stops whatever sends, keeping the last report."""

    @abstractmethod
    def _kill(self) -> None:
        """Ends all processes at once."""

    def stop(self) -> R:
        """Stops it, and returns the last report; a second time does nothing more."""
        with self._ending:
            if not self._over:
                self._over = True
                self._end()
                last = self.report()
                counts = {"asked": last.asked, "sent": last.sent, "received": last.received}
                self._timeline.happened("traffic", f"{self.what} ends", self.where, **counts)
        return self.report()

    def wait(self, timeout_s: float | None = None) -> R:
        """Waits until all is sent, and answered or given up; returns the last report.

        NotInTime if that takes longer than `timeout_s`: unless that is given, than the traffic's own time and a while.
        """

        def missing() -> str:
            report = self.report()
            return "" if report.finished else f"{report.sent} sent, {report.received} answered"

        wait_until(missing, self._most_s + GRACE_S if timeout_s is None else timeout_s, f"the end of {self}", POLL_S)
        return self.stop()

    def abandon(self) -> None:
        """Ends it at once, for a lab that goes away."""
        if not self._over:
            self._over = True
            self._kill()
            self._timeline.happened("traffic", f"{self.what} ends", self.where)

    def __enter__(self) -> Handle[R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __str__(self) -> str:
        return f"{self.what} to {self.where}"


class SenderHandle(Handle[R]):
    """Traffic from senders, one on each client; `_merge` makes one report of theirs."""

    def __init__(
        self, timeline: Timeline, what: str, where: str, most_s: float, workers: Workers, **detail: Any
    ) -> None:
        self._workers = workers
        self._documents = workers.ask("begin")
        super().__init__(timeline, what, where, most_s, **detail)

    @abstractmethod
    def _merge(self, documents: Sequence[Mapping[str, Any]]) -> R:
        """Returns the report on what all senders have said."""

    def report(self) -> R:
        if not self._over:
            self._take("report")
        return self._merge(list(self._documents.values()))

    def _take(self, command: str) -> None:
        self._documents = self._workers.ask(command)
        for client, document in self._documents.items():
            if document["error"]:
                raise LabError(f"{self.what} from {client} failed: {document['error']}")

    def _end(self) -> None:
        try:
            self._take("stop")
        finally:
            self._workers.close()

    def _kill(self) -> None:
        self._workers.abandon()


def start_senders(module: str, options: Mapping[LabNode, Mapping[str, Any]]) -> Workers:
    """Starts a sender on each of these clients, with its own options; they wait to be told to begin."""
    workers: dict[str, Worker] = {}
    try:
        for client, own in options.items():
            workers[client.name] = Worker(client, module, f"{SENDERS}.{module}", json.dumps(own))
        ready = Workers(workers)
        ready.ask("report")
    except BaseException:
        for worker in workers.values():
            worker.abandon()
        raise
    return ready


def totals(documents: Sequence[Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """Returns the sums of these counts over all senders, and what every report says."""
    sums: dict[str, Any] = {name: sum(document[name] for document in documents) for name in names}
    seconds = max((document["seconds"] for document in documents), default=0.0)
    return {**sums, "seconds": seconds, "finished": all(document["finished"] for document in documents)}


def tallies(documents: Sequence[Mapping[str, Any]], *names: str) -> dict[str, Counter[str]]:
    """Returns what all senders have counted by name, such as why connections failed."""
    counted: dict[str, Counter[str]] = {name: Counter() for name in names}
    for document in documents:
        for name, counts in counted.items():
            counts.update(document[name])
    return counted


def check_number(what: str, number: float, least: float, most: float, whole: bool = False) -> None:
    """Raises WrongUse for a number that is out of bounds: all traffic is bounded."""
    is_number = isinstance(number, int) or (not whole and isinstance(number, float))
    if not is_number or isinstance(number, bool) or not least <= number <= most:
        kind = "a whole number" if whole else "a number"
        raise WrongUse(f"{what}={number!r} is not allowed; allowed: {kind} from {least:g} to {most:g}")


def shares(total: int, parts: int) -> list[int]:
    """Returns a whole number divided as evenly as can be."""
    share, rest = divmod(total, parts)
    return [share + (part < rest) for part in range(parts)]
