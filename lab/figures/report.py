"""What was measured as tables for a terminal of 80 columns. Pure: nothing but the document is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

Document = Mapping[str, Any]


def tables(document: Document) -> Iterator[tuple[str, Table]]:
    """Yields both tables and what they are: over-provisioning, and disruption."""
    yield (f"Over-provisioning that {document['backends']:,} backends need, in percent", _table(
        ("scheme", "slots", "trials", "median", "5 to 95 %", "the paper", "within"),
        [
            (row["scheme"], _number(row["slots"]), str(row["trials"]), f"{row['median']:.2f}", _interval(row),
             "almost 0" if row["paper"] is None else f"{row['paper']}", _within(row["contains_paper"]))
            for row in document["over_provisioning"]
        ],
    ))  # fmt: skip
    yield ("Maglev hashing: slots of others that change when backends go, in percent", _table(
        ("slots", "backends gone", "trials", "median", "5 to 95 %", "with their own"),
        [
            (_number(row["slots"]), str(row["removed"]), str(row["trials"]), f"{row['median']:.2f}", _interval(row),
             f"{row['with_their_own']:.2f}")
            for row in document["disruption"]
        ],
    ))  # fmt: skip


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 and heading == "scheme" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _number(slots: int | None) -> str:
    return "none" if slots is None else f"{slots:,}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['low']:.2f} to {row['high']:.2f}"


def _within(contains: bool | None) -> str:
    return "" if contains is None else "yes" if contains else "no"
