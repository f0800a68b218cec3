"""What happened to a lab, and when: events as they come, in a file that survives whatever comes next.

Everything that does something to a lab writes an event: a fault and its end, traffic that begins or stops, a
configuration that is served. Measurements are not events: `sampler` writes these, into the same file.

Times are seconds since the `Lab` was made.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "timeline.jsonl"  # in the lab's directory: a JSON object a line, with `type` event or sample


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    at_s: float
    kind: str  # fault, undone, traffic, configuration, or note: what a script says
    what: str  # such as "kill", or "impair: loss 5 %"
    where: str = ""  # a node, or a link such as r1-m1
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.at_s:8.3f} s  {self.kind}: {self.what} {self.where}".rstrip()


class Timeline:
    """Events in the order in which they happened; `path` gets each at once."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._events: list[Event] = []
        self._writing = threading.Lock()
        self._path: Path | None = None

    @property
    def now_s(self) -> float:
        """Returns the time of this timeline."""
        return time.monotonic() - self._began

    def keep_in(self, path: Path) -> None:
        """Writes every event from now on to a file as well."""
        self._path = path

    def happened(self, kind: str, what: str, where: str = "", **detail: Any) -> Event:
        """Enters an event that has just happened, and returns it."""
        with self._writing:
            event = Event(round(self.now_s, 6), kind, what, where, detail)
            self._events.append(event)
            self._write({"type": "event", **asdict(event)})
        return event

    def sampled(self, values: Mapping[str, Any]) -> None:
        """Writes measurements that were taken just now to the file; they are not kept in memory."""
        with self._writing:
            self._write({"type": "sample", "at_s": round(self.now_s, 6), "values": dict(values)})

    def _write(self, document: Mapping[str, Any]) -> None:
        if self._path is not None:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(document, separators=(",", ":"), default=str) + "\n")

    @property
    def events(self) -> tuple[Event, ...]:
        """Returns all events so far."""
        return tuple(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __str__(self) -> str:
        return "\n".join(map(str, self._events))
