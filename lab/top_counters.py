"""The second page of `maglab top`: what the Maglevs count, in the words of their metrics, a column each. Pure.

Texts in Prometheus's format in, lines out. What no Maglev has counted is left out, and so is what does not fit: "and 7
more".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import inf

from prometheus_client.parser import text_string_to_metric_families

from .top_picture import HEADING, KEYS, TITLE, Line

LABEL, COLUMN = 34, 11  # characters
Samples = Sequence[tuple[str, Mapping[str, str], float]]  # name, labels, value
Row = tuple[str, Callable[[Samples], float | None]]

TABLE = "maglev_connection_table_"
PLAIN = {
    "configuration generation": "maglev_configuration_generation",
    "table: entries": TABLE + "entries",
    "table: hits": TABLE + "hits_total",
    "table: misses": TABLE + "misses_total",
    "table: overflows": TABLE + "overflows_total",
    "table: expired": TABLE + "expired_total",
    "health checks": "maglev_health_checks",
    "health checks that pass": "maglev_health_check_healthy",
    "batches": "maglev_batch_packets_count",
}
TRAFFIC = {"packets": "maglev_forwarded_packets_total", "bytes": "maglev_forwarded_bytes_total"}
BY = ("vip", "pool", "backend")


def samples(text: str) -> Samples:
    """Returns what a text of metrics says."""
    return [(s.name, s.labels, s.value) for family in text_string_to_metric_families(text) for s in family.samples]


def page(texts: Mapping[str, str | None], names: Mapping[str, str], width: int, height: int) -> list[Line]:
    """Returns the lines of a terminal of this size. `texts` are by Maglev, None of one that does not answer.

    `names` are those of nodes, by their addresses.
    """
    known = {maglev: samples(text) for maglev, text in texts.items() if text is not None}
    fit = list(texts)[: max(1, (width - LABEL) // COLUMN)]
    more = f"   and {len(texts) - len(fit)} more Maglevs" if len(texts) > len(fit) else ""
    head = " " * LABEL + "".join(f"{maglev:>{COLUMN}}" for maglev in fit)
    lines = [Line(f"what Maglevs have counted{more}".ljust(width), TITLE), Line(head, HEADING)]
    lines += [Line(_row(label, fit, known, value)) for label, value in rows(known.values(), names)]
    room = height - 1
    if len(lines) > room:
        lines = [*lines[: room - 1], Line(f"and {len(lines) - room + 1} more")]
    lines += [Line("")] * (room - len(lines))
    return [Line(line.text[:width], line.style) for line in [*lines, Line(KEYS.ljust(width), TITLE)]]


def _row(label: str, fit: Sequence[str], known: Mapping[str, Samples], value: Callable[[Samples], float | None]) -> str:
    numbers = [value(known[maglev]) if maglev in known else None for maglev in fit]
    return f"{label:{LABEL}}" + "".join(f"{_shown(number):>{COLUMN}}" for number in numbers)


def _shown(number: float | None) -> str:
    if number is None:
        return "-"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= 10 * size:
            return f"{number / size:,.1f}{unit}"
    return f"{number:,.0f}"


def rows(known: Iterable[Samples], names: Mapping[str, str]) -> Iterator[Row]:
    """Yields labels, and how each one's number is found in a Maglev's samples."""
    everything = [sample for each in known for sample in each]
    for label, name in PLAIN.items():
        yield label, partial(total, name=name, labels={})
    yield "packets in half of the batches, at most", median_batch
    for reason in _labels(everything, "maglev_dropped_packets_total", "reason"):
        yield f"dropped: {reason}", partial(total, name="maglev_dropped_packets_total", labels={"reason": reason})
    for label in BY:
        for value in _labels(everything, TRAFFIC["packets"], label):
            for what, name in TRAFFIC.items():
                yield f"{label} {names.get(value, value)}: {what}", partial(total, name=name, labels={label: value})


def _labels(everything: Samples, name: str, label: str) -> list[str]:
    """Returns the values of a label of which something has been counted, in order."""
    return sorted({labels[label] for each, labels, count in everything if each == name and count})


def total(known: Samples, name: str, labels: Mapping[str, str]) -> float | None:
    """Returns the sum of a name's samples that have these labels, None if there are none."""
    found = [value for each, has, value in known if each == name and labels.items() <= has.items()]
    return sum(found) if found else None


def median_batch(known: Samples) -> float | None:
    """Returns the size that half of the batches do not exceed, as exactly as their histogram says; None without."""
    bounds = sorted((float(has["le"]), value) for each, has, value in known if each == "maglev_batch_packets_bucket")
    half = next((bound for bound, count in bounds if count and count >= bounds[-1][1] / 2), inf)
    return half if half < inf else None
