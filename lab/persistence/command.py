"""The command: predicts, measures, shows, writes. What measures and draws is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..bench.command import machine
from ..errors import WrongUse
from ..results import JsonFile, check_writable, write_json

if TYPE_CHECKING:
    from .rows import Row

STOOD_FOR = "maglev.persistence"  # what a solution of exercise 9 stands for


def persistence(
    simulated: Annotated[bool, typer.Option("--simulate", help="100,000 connections, no lab, no root.")] = False,
    connections: Annotated[int, typer.Option(min=20, max=5000, help="Held in each lab.")] = 200,
    solution: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With your theory of exercise 9 in the place of Maglev Lab's.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it, as .svg, .png or .pdf.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Predict, then measure, how many connections break: five events, with two hashes, with and without tables.

    Exit status: 0 if theory and measurement agree everywhere, else 1.
    """
    check_writable(json_file)
    _check_chart(chart)
    if solution is not None:
        _stand_in(solution)
    rows = _measured(simulated, connections)
    _show(rows)
    if chart is not None:
        from .chart import draw

        draw(rows, chart)
    write_json(json_file, {"machine": machine(), "simulated": simulated, "rows": [row.document() for row in rows]})
    raise typer.Exit(0 if all(row.agrees for row in rows) else 1)


def _check_chart(chart: Path | None) -> None:
    check_writable(chart, "--chart")
    if chart is not None and chart.suffix not in (".svg", ".png", ".pdf"):
        raise WrongUse(f"--chart {chart}: cannot draw that; allowed are names that end in .svg, .png or .pdf")


def _stand_in(solution: Path) -> None:
    if not solution.is_file():
        raise WrongUse(f"--solution {solution}: no such file; maglab start 9 makes work/09_persistence/solution.py")
    from maglev.swap import swap_in

    swap_in(STOOD_FOR, solution)


def _measured(in_simulation: bool, connections: int) -> list[Row]:
    from .events import PROTECTIONS

    try:
        if in_simulation:
            from . import simulated

            return list(simulated.rows(PROTECTIONS))
        from . import live

        return list(live.rows(PROTECTIONS, connections, lambda text: typer.echo(text, err=True)))
    except NotImplementedError as gap:
        raise WrongUse(f"not yet implemented: {gap}") from None


def _show(rows: Sequence[Row]) -> None:
    from .report import table

    Console(width=80, highlight=False).print(table(rows))


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("persistence", short_help="Predict and measure which connections a change breaks.")(persistence)
