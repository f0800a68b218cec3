"""What a report shows of a run, worked out from its samples and events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..timeline import Event, Record, Sample
from ..wiring import natural

MOST_LINES = 6  # in one chart; more are drawn as their sum, the highest and the lowest


@dataclass(frozen=True)
class Line:
    """Values over time; None where nothing was measured."""

    name: str
    at_s: tuple[float, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Span:
    """A fault from when it happened until it was undone; None if it never was."""

    number: int  # in the order of beginning, from 1
    what: str
    where: str
    from_s: float
    until_s: float | None

    def __str__(self) -> str:
        return f"{self.what} {self.where}".strip()


@dataclass(frozen=True)
class Share:
    """What one of several got."""

    name: str
    count: float
    share: float


def spans(events: Iterable[Event]) -> list[Span]:
    """Returns all faults, each with its end: the next end of the same fault at the same place."""
    found: list[Span] = []
    open_: dict[tuple[str, str], list[int]] = {}
    for event in events:
        key = event.what, event.where
        if event.kind == "fault":
            open_.setdefault(key, []).append(len(found))
            began_s = event.at_s - event.detail.get("took_s", 0.0)  # it is told of when it has happened
            found.append(Span(len(found) + 1, event.what, event.where, began_s, None))
        elif event.kind == "undone" and open_.get(key):
            place = open_[key].pop()
            begun = found[place]
            found[place] = Span(begun.number, begun.what, begun.where, begun.from_s, event.at_s)
    return found


def rates(samples: Sequence[Sample], what: str) -> list[Line]:
    """Returns how fast counters rise, per second: of a link `r1-m1` as the rate of `m1`, over all routers.

    A counter that has fallen began anew, and nothing is known of the time between.
    """
    counts = [(sample.at_s, _by_far_end(sample.values.get(what, {}))) for sample in samples]
    names = sorted({name for _, each in counts for name in each}, key=natural)
    at_s = tuple(now for _, (now, _) in pairwise(counts))
    return [
        Line(name, at_s, tuple(_rate(before, now, name) for before, now in pairwise(counts))) for name in names if at_s
    ]


def _by_far_end(counts: Mapping[str, Any]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for link, count in counts.items():
        name = link.rpartition("-")[2]
        totals[name] = totals.get(name, 0) + count
    return totals


def _rate(before: tuple[float, Mapping[str, float]], now: tuple[float, Mapping[str, float]], name: str) -> float | None:
    (then_s, old), (now_s, new) = before, now
    if name not in old or name not in new or new[name] < old[name] or now_s <= then_s:
        return None
    return (new[name] - old[name]) / (now_s - then_s)


def readings(samples: Sequence[Sample], what: str, where: str = "") -> Line:
    """Returns one count over time: 0 where nothing was counted, None where nobody counted."""
    values = tuple(sample.values[what].get(where, 0) if what in sample.values else None for sample in samples)
    return Line(where or what, tuple(sample.at_s for sample in samples), values)


def few(lines: Sequence[Line]) -> list[Line]:
    """Returns the lines, or where there are too many to be told apart their sum, the highest and the lowest."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    columns = [
        [value for value in column if value is not None] for column in zip(*(e.values for e in lines), strict=True)
    ]
    return [
        Line(name, lines[0].at_s, tuple(of(column) if column else None for column in columns))
        for name, of in ((f"all {len(lines)} together", sum), ("the highest", max), ("the lowest", min))
    ]


def gained(samples: Sequence[Sample], what: str) -> list[Share]:
    """Returns what each Maglev got of a counter over the whole run, as counts and shares."""
    totals: dict[str, float] = {}
    for before, now in pairwise(samples):
        old, new = (_by_far_end(sample.values.get(what, {})) for sample in (before, now))
        for name, count in new.items():
            totals[name] = totals.get(name, 0) + max(0.0, count - old.get(name, 0))
    return _shares(totals)


def served(samples: Sequence[Sample]) -> tuple[float, list[Share]]:
    """Returns who served how many connections when most were held, and when that was."""
    if not samples:
        return 0.0, []
    fullest = max(samples, key=lambda sample: sum(sample.values.get("served", {}).values()))
    return fullest.at_s, _shares(fullest.values.get("served", {}))


def _shares(counts: Mapping[str, float]) -> list[Share]:
    total = sum(counts.values())
    return [Share(name, counts[name], counts[name] / total) for name in sorted(counts, key=natural)] if total else []


def seeds(record: Record) -> list[str]:
    """Returns every seed that the run says it used, in words."""
    own = [f"the run: {record.about['seed']}"] if "seed" in record.about else []
    return own + [f"{e.what} {e.where}: {e.detail['seed']}".strip() for e in record.events if "seed" in e.detail]


def build(record: Record) -> str:
    """Returns the Python expression that builds the same lab; "" if the timeline does not say."""
    asked = dict(record.about.get("lab", {}))
    if not asked:
        return ""
    options = ", ".join(f"{name}={value!r}" for name, value in asked.items() if name != "topology")
    return f"Lab({asked.get('topology')!r}{', ' if options else ''}{options})"
