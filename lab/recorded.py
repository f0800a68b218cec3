"""`maglab report` and `maglab export`: what a lab has recorded, as a page and as a table. They need no root."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .results import check_writable

Recorded = Annotated[Path, typer.Argument(metavar="TIMELINE", help="What a lab has recorded, such as run.jsonl.")]


def register(app: typer.Typer) -> None:
    """Adds the two commands to `maglab`."""
    app.command(short_help="Turn what a lab has recorded into a page.")(report)
    app.command(short_help="Turn what a lab has recorded into a table.")(export)


def report(
    timeline: Recorded,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="A page, or Markdown for a name that ends in .md.")],
) -> None:
    """Write a report of a run: `maglab report run.jsonl run.html`. Needs no root."""
    from . import report as reporting
    from .timeline import read

    check_writable(output, "FILE")
    reporting.write(read(timeline), output)


def export(
    timeline: Recorded,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write CSV; without any option it is printed.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Parquet, if pyarrow is installed.")
    ] = None,
) -> None:
    """Write every measurement and event of a run as a row: `maglab export run.jsonl --csv run.csv`. Needs no root."""
    from . import export as exporting
    from .timeline import read

    check_writable(csv, "--csv")
    check_writable(parquet, "--parquet")
    record = read(timeline)
    if parquet:
        exporting.to_parquet(record, parquet)
    if csv:
        with open(csv, "w", encoding="utf-8", newline="") as file:
            exporting.to_csv(record, file)
    elif not parquet:
        exporting.to_csv(record, sys.stdout)
