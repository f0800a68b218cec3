"""What can be seen of a running lab: the part of `Lab` that takes snapshots, records, and reports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import observe, timeline, usage, ways
from .connections import Connection, Connections
from .errors import LabError, WrongUse
from .observe import Snapshot
from .results import check_writable
from .sampler import LONGEST_S, SHORTEST_S, Recording
from .timeline import Timeline


class Observation:
    """What `Lab` shows of itself."""

    timeline: Timeline
    _connections: list[Connections]

    def __init__(self) -> None:
        self._meter = usage.Meter()
        self._recordings: list[Recording] = []

    def snapshot(self, tables: bool = False) -> Snapshot:
        """Returns what can be seen of the lab now; with `tables`, whole lookup tables too."""
        hosts = self.net.hosts
        return Snapshot(
            {node.name: observe.maglev_view(node.control, True, tables) for node in hosts if node.role == "maglev"},
            {node.name: observe.router_view(node) for node in hosts if node.role == "router"},
            self._meter.read(usage.processes({node.name: node.pid for node in hosts if node.is_here})),
            tuple(self._all_connections()),
            {address: node.name for node in hosts for end in node.intfList() for address in _addresses(node, end)},
            self.timeline.now_s,
        )

    def _all_connections(self) -> Iterator[Connection]:
        """Yields every connection that was opened; not those of a client whose traffic process was ended meanwhile."""
        for held in tuple(self._connections):
            with contextlib.suppress(LabError, OSError, ValueError):
                yield from held.all()

    def ways(self) -> ways.Record:
        """Returns a record, not begun, of the Maglevs by which each flow goes: a context manager."""
        return ways.Record([node for node in self.net.hosts if node.role == "router"])

    def recording(self, interval_s: float = 1.0, file: Path | None = None) -> Recording:
        """Samples the lab into its timeline from now on, until the context ends; `file` then gets a copy of it."""
        if not SHORTEST_S <= interval_s <= LONGEST_S:
            raise WrongUse(f"interval_s={interval_s!r} is not allowed; allowed: {SHORTEST_S} to {LONGEST_S:g} seconds")
        check_writable(file, "file")
        recording = Recording(self.snapshot, self.timeline, interval_s, file)
        self._recordings.append(recording)
        return recording

    def _end_recordings(self) -> None:
        for recording in self._recordings:
            recording.stop()
        self._recordings.clear()

    def report(self, path: Path) -> None:
        """Writes a report of everything up to now, as its timeline tells it: HTML, or Markdown for a name in .md."""
        from . import report

        report.write(timeline.read(self.directory / timeline.FILE), path)


def _addresses(node: Any, interface: Any) -> list[str]:
    return list(node.addresses_of(interface).values())
