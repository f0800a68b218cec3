"""The command: measures, shows, writes. What measures and draws is imported when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..bench.command import machine
from ..errors import WrongUse
from ..results import JsonFile, check_writable, write_json

FILES = ("figures.json", "figures.txt", "figure-11.svg", "figure-12.svg")
STOOD_FOR = ("maglev.hashing", "maglev.comparison")  # what a solution of exercise 3 stands for

Document = Mapping[str, Any]


def figures(
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write tables, JSON and charts to a directory.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer trials: half a minute.")] = False,
    solution: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With your code of exercise 3 in the place of Maglev Lab's.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the balance and the disruption of lookup tables, as in §5.3: the over-provisioning table, figures 11, 12.

    Figures 8 to 10, packets a second, come from `maglab bench`. Needs no root.
    """
    from ..bench.request import progress
    from .measure import FULL, QUICK, measure, steps

    check_writable(json_file)
    _prepare(out)
    if solution is not None:
        _stand_in(solution)
    console, effort = Console(width=80, highlight=False), QUICK if quick else FULL
    with progress(Console(), steps(effort)) as step:
        document = {"figures": [11, 12], "machine": machine(), "quick": quick, **measure(effort, step)}
    _show(document, console)
    write_json(json_file, document)
    if out is not None:
        _write(out, document)


def _prepare(out: Path | None) -> None:
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            check_writable(out / FILES[0], "--out")
    except OSError as error:
        raise WrongUse(f"--out {out}: {error.strerror}; name a directory that exists or can be made") from None


def _stand_in(solution: Path) -> None:
    if not solution.is_file():
        raise WrongUse(f"--solution {solution}: no such file; maglab start 3 makes work/03_hashing/solution.py")
    from maglev.swap import swap_in

    for module in STOOD_FOR:
        swap_in(module, solution)


def _show(document: Document, console: Console) -> None:
    from .report import tables

    for title, table in tables(document):
        console.print(f"\n{title}\n")
        console.print(table)


def _write(out: Path, document: Document) -> None:
    """Writes all files of a document: see `FILES`."""
    from .chart import balance, resilience

    (out / FILES[0]).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    with open(out / FILES[1], "w", encoding="utf-8") as file:
        _show(document, Console(width=80, file=file, highlight=False))
    balance(document, out / FILES[2])
    resilience(document, out / FILES[3])
    typer.echo(f"written to {out}: {', '.join(FILES)}")


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("figures", short_help="Measure the paper's figures about lookup tables again.")(figures)
