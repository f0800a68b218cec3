"""Looks at a running lab again and again, and writes what it sees to the lab's timeline.

    with lab.recording(interval_s=1.0, file=Path("run.jsonl")):
        with lab.kill("m1"):
            lab.wait_converged()

A look is a snapshot, made flat. It starts no program, and costs some milliseconds of processor time; where it costs
more, because a lab is large or holds many connections, the sampler looks less often rather than take more than
`LARGEST_SHARE` of a core. Only what has changed is written.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from maglev.errors import MaglevError

from .errors import LabError
from .observe import MaglevView, Snapshot
from .timeline import Timeline, Values, changed

LARGEST_SHARE = 0.04  # of a core, for looking
SHORTEST_S, LONGEST_S = 0.01, 3600.0  # between two looks


class Recording:
    """A thread that samples a lab; a context manager, from whose end on nothing is sampled any more."""

    def __init__(
        self, take: Callable[[], Snapshot], timeline: Timeline, interval_s: float, file: Path | None = None
    ) -> None:
        self.cpu_s = 0.0  # processor time of this thread so far
        self.looks = 0
        self.missed = 0  # looks that found the lab in the middle of something
        self._take, self._timeline, self._interval_s, self._file = take, timeline, interval_s, file
        self._before: Values = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._began = time.monotonic()
        self._ended: float | None = None
        self._thread.start()

    @property
    def share_of_core(self) -> float:
        """Returns how much of one core looking has taken."""
        return self.cpu_s / ((self._ended or time.monotonic()) - self._began)

    def _run(self) -> None:
        while True:
            began, cpu_began = time.monotonic(), time.thread_time()
            self._look()
            spent_s = time.thread_time() - cpu_began
            self.cpu_s += spent_s
            period_s = max(self._interval_s, spent_s / LARGEST_SHARE)
            if self._over.wait(max(0.0, began + period_s - time.monotonic())):
                return

    def _look(self) -> None:
        try:
            values = values_of(self._take())
        except (LabError, MaglevError, OSError):  # a node that goes or comes just now; the next look will see
            self.missed += 1
            return
        self._timeline.sampled(changed(self._before, values))
        self._before = values
        self.looks += 1

    def stop(self) -> None:
        """Looks a last time, and ends; a second time does nothing."""
        if self._ended is not None:
            return
        self._over.set()
        self._thread.join()
        self._ended = time.monotonic()
        self._look()
        if self._file is not None:
            self._timeline.copy_to(self._file)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def values_of(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """Returns a snapshot's measurements: what is measured, where (a node, a link, a pool at a Maglev), and the value.

    Counters are what they stand at; whoever wants rates takes differences. Pure.
    """
    fates = Counter(connection.fate for connection in snapshot.connections)
    served = Counter(connection.endpoint for connection in snapshot.connections if connection.fate == "alive")
    values: dict[str, dict[str, Any]] = {
        "cpu_s": {name: round(usage.cpu_s, 2) for name, usage in snapshot.nodes.items()},
        "memory_mb": {name: round(usage.memory_bytes / 1e6) for name, usage in snapshot.nodes.items()},
        "processes": {name: usage.processes for name, usage in snapshot.nodes.items()},
        "connections": dict(fates),
        "broken": {"": sum(connection.is_broken for connection in snapshot.connections)},
        "messages": {"": sum(connection.messages for connection in snapshot.connections)},
        "served": {name: count for name, count in served.items() if name},
    }
    for name, router in snapshot.routers.items():
        for what, counts in (
            ("packets", router.packets_to),
            ("flows", router.flows_to),
            ("returned", router.packets_returned),
            ("session", router.sessions),
        ):
            values.setdefault(what, {}).update({f"{name}-{maglev}": value for maglev, value in counts.items()})
        hops = {f"{name} {vip}": [snapshot.names.get(hop, hop) for hop in each] for vip, each in router.ecmp.items()}
        values.setdefault("hops", {}).update(hops)
    for name, view in snapshot.maglevs.items():
        for what, each in _of_maglev(name, view).items():
            values.setdefault(what, {}).update(each)
    return values


def _of_maglev(name: str, view: MaglevView | None) -> dict[str, dict[str, Any]]:
    if view is None:
        return {"ready": {name: False}}
    pools = {f"{name} {pool}": state for pool, state in view.status["pools"].items()}
    return {
        "ready": {name: bool(view.status["ready"])},
        "draining": {name: bool(view.status["draining"])},
        "forwarded": {name: view.statistics["forwarded"]},
        "dropped": {f"{name} {reason}": count for reason, count in view.statistics["drops"].items() if count},
        "remembered": {name: view.statistics["connections"]["entries"]},
        "healthy": {where: len(state["healthy"]) for where, state in pools.items()},
        "table": {where: state["table_digest"] for where, state in pools.items()},
        "checks_failing": {name: sum(check["verdict"] != "healthy" for check in view.health.get("checks", ()))},
    }
