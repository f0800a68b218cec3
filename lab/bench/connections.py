"""`maglab bench connections`: what one operation on a connection table costs when a million connections are in it.

A subject is a way of remembering flows. Another one is added by a line in `SUBJECTS`.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from maglev.compiled import fast, inlined
from maglev.conntrack import IDLE_TICKS, ConnectionTable
from maglev.fast.conntrack import (
    KEY_BYTES,
    Array,
    Connections,
    FastConnectionTable,
    advance,
    hash_of,
    lookup,
    record,
    tick_of,
)
from maglev.fast.flow import Key
from maglev.fast.forwarding import LARGEST_BATCH
from maglev.fast.numbering import Numbering
from maglev.fast.words import prefetch
from maglev.flow import TCP, V4_MAPPED, Flow

from .request import Request, progress

RUNS = 3
CONNECTIONS, QUICK_CONNECTIONS = 1_000_000, 100_000
BACKEND = V4_MAPPED + bytes([10, 2, 0, 1])
OPERATIONS = ("insert", "hit", "miss")

Flows = Sequence[Flow]


class Subject(Protocol):
    """A table that can be filled and asked, many flows to a call, so that a compiled one can loop by itself."""

    def prepared(self, flows: Flows) -> Any:
        """Returns flows as this table takes them."""
        return flows

    def insert(self, flows: Any) -> None:
        """Remembers a backend for each flow."""

    def look_up(self, flows: Any) -> None:
        """Asks for each flow's backend."""


class Reference(Subject):
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


class Compiled(Subject):
    """The connection table of `maglev.fast.conntrack`, asked as packet threads do: by batches, slots fetched first."""

    def __init__(self, capacity: int) -> None:
        numbering = Numbering()
        self._backend = numbering.number(BACKEND)
        self.table = FastConnectionTable(numbering, capacity, keys=random.Random(1).randbytes(KEY_BYTES))
        self._hashes = np.zeros(LARGEST_BATCH, np.uint64)
        for work in (self.insert, self.look_up):
            work(self.prepared([]))  # compiles it

    def prepared(self, flows: Flows) -> Array:
        """Returns the flows' keys, uint64 (flows, 5): what `maglev.fast.flow.key_of` returns for each."""
        addresses = np.frombuffer(b"".join(flow.source + flow.destination for flow in flows), ">u8")
        numbers = [flow.source_port << 48 | flow.destination_port << 32 | flow.protocol << 8 | 1 for flow in flows]
        return np.column_stack([addresses.reshape(-1, 4), np.array(numbers, np.uint64)]).astype(np.uint64)

    def insert(self, flows: Array) -> None:
        _record_all(self.table.arrays, flows, self._hashes, self._backend)

    def look_up(self, flows: Array) -> None:
        _look_up_all(self.table.arrays, flows, self._hashes)


@inlined
def _key(keys: Array, i: int) -> Key:
    return keys[i, 0], keys[i, 1], keys[i, 2], keys[i, 3], keys[i, 4]


@inlined
def _begin(table: Connections, keys: Array, hashes: Array, first: int) -> int:
    """Hashes the flows of a batch and has their slots fetched; returns how many they are."""
    count = min(LARGEST_BATCH, keys.shape[0] - first)
    advance(table, tick_of(0.0, table.limits[1]))
    for i in range(count):
        hashes[i] = hash_of(_key(keys, first + i), table.keys)
        prefetch(table.entries, hashes[i] & np.uint64(table.entries.shape[0] - 1))
    return count


@fast
def _record_all(table: Connections, keys: Array, hashes: Array, backend: int) -> None:
    for first in range(0, keys.shape[0], LARGEST_BATCH):
        for i in range(_begin(table, keys, hashes, first)):
            record(table, _key(keys, first + i), hashes[i], backend)


@fast
def _look_up_all(table: Connections, keys: Array, hashes: Array) -> None:
    for first in range(0, keys.shape[0], LARGEST_BATCH):
        for i in range(_begin(table, keys, hashes, first)):
            lookup(table, _key(keys, first + i), hashes[i], IDLE_TICKS)


class Dictionary(Subject):
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


SUBJECTS: dict[str, Callable[[int], Subject]] = {"conntrack": Reference, "compiled": Compiled, "dict": Dictionary}


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
    for work, prepared in [(work, subject.prepared(flows)) for work, flows in works]:
        start = time.perf_counter()
        work(prepared)
        times.append((time.perf_counter() - start) / len(prepared) * 1e9)
    return tuple(times)


def row_of(name: str, taken: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """Returns the medians of a subject's operations."""
    medians = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"subject": name} | {f"{what}_ns": round(ns, 1) for what, ns in zip(OPERATIONS, medians, strict=True)}
