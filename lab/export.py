"""A timeline as a table, for whoever counts with a spreadsheet or a data frame: CSV, or Parquet where pyarrow is.

A row is one measurement or one event: `at_s, kind, what, where, value, text`. Numbers stand in `value`, all else in
`text`; an event's details are JSON.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from .errors import CannotStart
from .timeline import Record


class Row(NamedTuple):
    """One measurement, event or verdict."""

    at_s: float
    kind: str  # sample, or an event's: fault, undone, traffic, …
    what: str
    where: str
    value: float | None
    text: str


def rows(record: Record) -> Iterator[Row]:
    """Yields a run in the order of time."""
    found = [
        Row(event.at_s, event.kind, event.what, event.where, None, json.dumps(event.detail) if event.detail else "")
        for event in record.events
    ]
    for sample in record.samples:
        for what, each in sample.values.items():
            found += [Row(sample.at_s, "sample", what, where, *_split(value)) for where, value in each.items()]
    yield from sorted(found, key=lambda row: row.at_s)


def _split(value: Any) -> tuple[float | None, str]:
    if isinstance(value, bool | int | float):
        return float(value), ""
    return None, " ".join(map(str, value)) if isinstance(value, list) else str(value)


def to_csv(record: Record, file: TextIO) -> int:
    """Writes a run as CSV (RFC 4180); returns the number of rows."""
    writer = csv.writer(file)
    writer.writerow(Row._fields)
    count = 0
    for row in rows(record):
        writer.writerow(row)
        count += 1
    return count


def to_parquet(record: Record, path: Path) -> int:
    """Writes a run as Parquet; returns the number of rows. CannotStart where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise CannotStart(
            "Parquet is written by pyarrow, which is not installed: .venv/bin/pip install pyarrow, or take --csv"
        ) from None
    columns = list(zip(*rows(record), strict=True)) or [()] * len(Row._fields)
    types = [pyarrow.float64(), *[pyarrow.string()] * 3, pyarrow.float64(), pyarrow.string()]
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    pyarrow.parquet.write_table(pyarrow.table(dict(zip(Row._fields, arrays, strict=True))), path, compression="zstd")
    return len(columns[0])
