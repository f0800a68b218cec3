"""What happened to a lab, and when: events as they come, in a file that survives whatever comes next.

Everything that does something to a lab writes an event: a fault and its end, traffic that begins or stops, a
configuration that is served. Measurements are not events: `sampler` writes these, into the same file. So do a run's
particulars (what was built, with which versions) and the verdicts on it: the file alone tells the whole run, and
`report` and `export` need nothing else.

Times are seconds since the `Lab` was made.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import WrongUse
from .verdict import Verdict

FILE = "timeline.jsonl"  # in the lab's directory: a JSON object a line, with `type` run, event, sample or verdict


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


@dataclass(frozen=True)
class Sample:
    """Measurements of one moment: what is measured, where, and the value."""

    at_s: float
    values: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Record:
    """A whole run, read back from its file."""

    about: Mapping[str, Any] = field(default_factory=dict)  # what was built, versions, seeds
    events: tuple[Event, ...] = ()
    samples: tuple[Sample, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


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
        return self.at_s(time.monotonic())

    def at_s(self, monotonic_s: float) -> float:
        """Returns a time of the machine's monotonic clock, in seconds, as one of this timeline."""
        return monotonic_s - self._began

    def keep_in(self, path: Path) -> None:
        """Writes every event from now on to a file as well."""
        self._path = path

    def copy_to(self, path: Path) -> None:
        """Copies the file as it is now; the lab takes its own away when it stops."""
        with self._writing:
            if self._path is not None and self._path.exists():
                shutil.copyfile(self._path, path)

    def about(self, **particulars: Any) -> None:
        """Writes particulars of the run; of several values for one name, the last counts."""
        with self._writing:
            self._write({"type": "run", "at_s": round(self.now_s, 6), "about": particulars})

    def happened(self, kind: str, what: str, where: str = "", **detail: Any) -> Event:
        """Enters an event that has just happened, and returns it."""
        with self._writing:
            event = Event(round(self.now_s, 6), kind, what, where, detail)
            self._events.append(event)
            self._write({"type": "event", **asdict(event)})
        return event

    def sampled(self, values: Mapping[str, Any]) -> None:
        """Writes measurements that were taken just now to the file; they are not kept in memory.

        What is left out is as in the sample before; null says that it is no more.
        """
        with self._writing:
            self._write({"type": "sample", "at_s": round(self.now_s, 3), "values": dict(values)})

    def judged(self, verdict: Verdict) -> Verdict:
        """Writes a verdict, and returns it."""
        with self._writing:
            self._write({"type": "verdict", "at_s": round(self.now_s, 6), **asdict(verdict)})
        return verdict

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


def read(path: Path) -> Record:
    """Returns the run that a timeline's file tells; a line cut short by a crash is passed over.

    WrongUse if there is no such file, or if it is no timeline.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"cannot read the timeline {path}: {getattr(error, 'strerror', None) or error}") from None
    documents = [document for line in lines if (document := _document(line))]
    if not documents:
        raise WrongUse(f"{path} is no timeline: allowed are files that a lab has written, such as {FILE}")
    return record(documents)


def _document(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        document = json.loads(line)
        if isinstance(document, dict) and document.get("type") in ("run", "event", "sample", "verdict"):
            return document
    return {}


def record(documents: list[dict[str, Any]]) -> Record:
    """Returns the run that a timeline's documents tell; samples get back what was left out of them: pure."""
    about: dict[str, Any] = {}
    samples: list[Sample] = []
    events, verdicts = [], []
    for document in documents:
        match document["type"]:
            case "run":
                about |= document["about"]
            case "event":
                events.append(Event(*(document[name] for name in ("at_s", "kind", "what", "where", "detail"))))
            case "sample":
                before = samples[-1].values if samples else {}
                samples.append(Sample(document["at_s"], completed(before, document["values"])))
            case "verdict":
                verdicts.append(_verdict(document))
    return Record(about, tuple(events), tuple(samples), tuple(verdicts))


def _verdict(document: Mapping[str, Any]) -> Verdict:
    names = ("claim", "holds", "expected", "actual", "evidence", "look_at")
    return Verdict(**{name: document[name] for name in names} | {"evidence": tuple(document["evidence"])})


Values = Mapping[str, Mapping[str, Any]]


def completed(before: Values, changes: Values) -> dict[str, Mapping[str, Any]]:
    """Returns a whole sample from the one before and what has changed since; the inverse of `changed`."""
    whole = dict(before)
    for what, each in changes.items():
        whole[what] = {key: value for key, value in {**whole.get(what, {}), **each}.items() if value is not None}
    return whole


def changed(before: Values, now: Values) -> dict[str, dict[str, Any]]:
    """Returns what of a sample differs from the one before; what is no more is None."""
    found = {}
    for what in dict.fromkeys([*before, *now]):
        old, new = before.get(what, {}), now.get(what, {})
        differing = {where: value for where, value in new.items() if old.get(where) != value}
        differing |= {where: None for where in old if where not in new}
        if differing:
            found[what] = differing
    return found
