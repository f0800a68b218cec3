"""Processor time and memory of a lab's nodes, from /proc (proc(5)).

A node's processes are those in its network namespace, whoever started them, so that nothing escapes the count: children
of daemons, traffic, what a person runs there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What the processes of one node use."""

    processes: int = 0
    cpu_s: float = 0.0  # processor time, user and system, so far
    memory_bytes: int = 0  # resident; pages that processes share, such as a nursery's forks, count for each


@dataclass(frozen=True)
class Process:
    """One process at one moment."""

    pid: int
    start_ticks: int  # told from a later one with the same number by this
    cpu_ticks: int
    memory_bytes: int


def processes(shells: Mapping[str, int]) -> dict[str, list[Process]]:
    """Returns the processes of each node, by its name; `shells` has one process of each."""
    found: dict[str, list[Process]] = {name: [] for name in shells}
    nodes = {namespace: name for name, pid in shells.items() if (namespace := _namespace(str(pid)))}
    for pid in _everybody():
        node = nodes.get(_namespace(pid))
        if node is not None:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found[node].append(parse(int(pid), Path(f"/proc/{pid}/stat").read_text()))
    return found


def parse(pid: int, stat: str) -> Process:
    """Returns a process from its /proc/PID/stat; its name, in brackets, may hold anything."""
    fields = stat.rpartition(")")[2].split()  # from field 3 on
    return Process(pid, int(fields[19]), int(fields[11]) + int(fields[12]), int(fields[21]) * PAGE_BYTES)


def _everybody() -> Iterator[str]:
    return (name for name in os.listdir("/proc") if name.isdigit())


def _namespace(pid: str) -> int:
    """Returns the number of a process's network namespace, 0 if it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


@dataclass
class Meter:
    """Adds up the processor time of nodes over the lives of all their processes: who dies takes nothing away.

    But for what it used after the last reading before its death.
    """

    _seen: dict[tuple[int, int], int] = field(default_factory=dict)  # (pid, start): ticks
    _cpu_ticks: dict[str, int] = field(default_factory=dict)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def read(self, found: Mapping[str, list[Process]]) -> dict[str, Usage]:
        """Returns what each node uses, with all the processor time that was ever used there."""
        with self._reading:
            self._add_up(found)
        return {
            name: Usage(len(each), self._cpu_ticks.get(name, 0) / TICKS_PER_S, sum(p.memory_bytes for p in each))
            for name, each in found.items()
        }

    def _add_up(self, found: Mapping[str, list[Process]]) -> None:
        seen: dict[tuple[int, int], int] = {}
        for name, processes in found.items():
            for process in processes:
                key = (process.pid, process.start_ticks)
                seen[key] = process.cpu_ticks
                fresh = process.cpu_ticks - self._seen.get(key, 0)
                self._cpu_ticks[name] = self._cpu_ticks.get(name, 0) + fresh
        self._seen = seen
