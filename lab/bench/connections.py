"""`maglab bench connections`: what one operation on a connection table costs when a million connections are in it.

A subject is a way of remembering flows. Another one is added by a line in `SUBJECTS`.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rich.console import Console

from maglev.conntrack import ConnectionTable
from maglev.flow import TCP, V4_MAPPED, Flow

from .request import Request, progress

RUNS = 3
CONNECTIONS, QUICK_CONNECTIONS = 1_000_000, 100_000
BACKEND = V4_MAPPED + bytes([10, 2, 0, 1])
OPERATIONS = ("insert", "hit", "miss")

Flows = Sequence[Flow]


class Subject(Protocol):
    """A table that can be filled and asked, many flows to a call, so that a compiled one can loop by itself."""

    def insert(self, flows: Flows) -> None:
        """Remembers a backend for each flow."""

    def look_up(self, flows: Flows) -> None:
        """Asks for each flow's backend."""


class Reference:
    """The connection table of `maglev.conntrack`."""

    def __init__(self, capacity: int) -> None:
        self._table = ConnectionTable(capacity)

    def insert(self, flows: Flows) -> None:
        record = self._table.record
        for flow in flows:
            record(flow, BACKEND, 0.0)

    def look_up(self, flows: Flows) -> None:
        lookup = self._table.lookup
        for flow in flows:
            lookup(flow, 0.0)


class Dictionary:
    """Python's dictionary, which never forgets: the least that Python can do."""

    def __init__(self, capacity: int) -> None:
        self._backends: dict[Flow, bytes] = {}

    def insert(self, flows: Flows) -> None:
        backends = self._backends
        for flow in flows:
            backends[flow] = BACKEND

    def look_up(self, flows: Flows) -> None:
        get = self._backends.get
        for flow in flows:
            get(flow)


SUBJECTS: dict[str, Callable[[int], Subject]] = {"conntrack": Reference, "dict": Dictionary}


def run(request: Request, console: Console) -> dict[str, Any]:
    """Measures, and returns the document."""
    count, runs = QUICK_CONNECTIONS if request.quick else CONNECTIONS, request.runs_or(RUNS)
    chosen = request.chosen(tuple(SUBJECTS))
    with progress(console, 1 + runs * len(chosen)) as step:
        step(f"making {2 * count:,} flows")
        inside, outside = flows_from(0x0A000000, count), flows_from(0x0B000000, count)
        times: dict[str, list[tuple[float, ...]]] = {name: [] for name in chosen}
        for number in range(1, runs + 1):
            for name in chosen:
                step(f"run {number}: {name}")
                times[name].append(_times_ns(SUBJECTS[name](count), inside, outside))
    return {"connections": count, "rows": [row_of(name, taken) for name, taken in times.items()]}


def flows_from(first_source: int, count: int) -> list[Flow]:
    """Returns flows of as many clients, in an order that no cache can guess, the same every time."""
    vip = V4_MAPPED + bytes([192, 0, 2, 1])
    sources = [V4_MAPPED + (first_source + i).to_bytes(4, "big") for i in range(count)]
    random.Random(1).shuffle(sources)
    return [Flow(source, vip, TCP, 1024 + i % 60_000, 80) for i, source in enumerate(sources)]


def _times_ns(subject: Subject, inside: Flows, outside: Flows) -> tuple[float, ...]:
    """Returns nanoseconds for each insert, hit and miss."""
    works = ((subject.insert, inside), (subject.look_up, inside[::-1]), (subject.look_up, outside))
    times = []
    for work, flows in works:
        start = time.perf_counter()
        work(flows)
        times.append((time.perf_counter() - start) / len(flows) * 1e9)
    return tuple(times)


def row_of(name: str, taken: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """Returns the medians of a subject's operations."""
    medians = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"subject": name} | {f"{what}_ns": round(ns, 1) for what, ns in zip(OPERATIONS, medians, strict=True)}
