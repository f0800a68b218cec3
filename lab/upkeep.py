"""`maglab ps` and `maglab clean`: which labs there are on this machine, and taking away what they left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .errors import CannotStart, WrongUse
from .inventory import Running, Standing, standing
from .results import JsonFile, check_writable, write_json
from .site import Site, sites

console = Console()
NUMBERS = ("age", "processes", "memory", "cores", "CPU")  # headings of columns that are set to the right


def register(app: typer.Typer) -> None:
    """Adds the two commands to `maglab`."""
    app.command(short_help="List the labs on this machine.")(ps)
    app.command(short_help="Take away what killed labs left behind.")(clean)


def ps(
    lab: Annotated[str | None, typer.Argument(help="A lab's id: lists its processes, node by node.")] = None,
    json_file: JsonFile = None,
) -> None:
    """List the labs on this machine, running or left behind; with an ID, that lab's processes, node by node."""
    check_writable(json_file)
    if lab is not None:
        one = standing(_left_or_running(lab))
        print_processes(console, one)
        write_json(json_file, one.document())
        return
    labs = [standing(site) for site in sites()]
    print_labs(console, labs)
    write_json(json_file, [each.document() for each in labs])


def _left_or_running(lab: str) -> Site:
    """Returns a lab by its id; WrongUse, naming those there are, if there is none."""
    there = {site.id: site for site in sites()}
    if lab not in there:
        raise WrongUse(f"there is no lab {lab!r}; there are {', '.join(there) or 'none'}")
    return there[lab]


def clean(
    lab: Annotated[str | None, typer.Argument(help="A lab's id; without it, all labs whose owner has died.")] = None,
) -> None:
    """Take away what labs left behind that were killed; with an ID, that lab, even if it runs or is kept."""
    if os.geteuid() != 0:
        raise CannotStart("only root may take a lab away: run it with sudo")
    there = sites()
    chosen = [_left_or_running(lab)] if lab else [site for site in there if not site.is_owned and not site.is_kept]
    kept = [site.id for site in there if not lab and site.is_kept and not site.is_owned]
    for site in chosen:
        if lab and site.owner is not None:
            site.owner.kill()
        console.print(f"{site.id}: ended {site.clean()} processes", highlight=False)
    gone = {site.id for site in chosen}
    running = [site.id for site in there if site.id not in gone and site.is_owned]
    if running:
        console.print(f"left alone, still running: {', '.join(running)}", highlight=False)
    if kept:
        console.print(f"left alone, kept: {', '.join(kept)}; maglab clean ID takes one away", highlight=False)
    if not chosen and not running and not kept:
        console.print("nothing to clean")


def print_labs(console: Console, labs: Sequence[Standing]) -> None:
    """Prints a line a lab, and how to take away those that nobody owns any more."""
    if not labs:
        console.print("no labs")
        return
    table = _bare_table("id", "topology", "state", "owner", "age", "processes", "memory", "cores")
    for each in labs:
        owner = "" if each.owner is None else str(each.owner)
        count, cores = str(len(each.processes)), f"{each.cpu_s / max(each.age_s, 1):.2f}"
        table.add_row(each.id, each.topology, each.state, owner, _age(each.age_s), count, _mb(each), cores)
    console.print(table)
    for each in labs:
        if each.state != "running":
            said = f"{each.id} has no owner any more: maglab clean {each.id if each.state == 'kept' else ''}"
            console.print(said.rstrip(), highlight=False, soft_wrap=True)


def print_processes(console: Console, lab: Standing) -> None:
    """Prints a line a process."""
    table = _bare_table("node", "process", "what", "memory", "CPU")
    for process in lab.processes:
        table.add_row(process.node or "-", str(process.pid), process.what, _mb(process), f"{process.cpu_s:.2f} s")
    console.print(table)


def _bare_table(*headings: str) -> Table:
    table = Table(box=None)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", no_wrap=True)
    return table


def _mb(measured: Standing | Running) -> str:
    return f"{measured.memory_bytes / 1e6:.0f} MB"


def _age(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
