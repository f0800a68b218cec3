"""Runs one bench for the command line: checks, measures, shows, writes."""

from __future__ import annotations

import os
import platform
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import CannotStart, WrongUse
from ..particulars import processor
from ..site import Site
from .request import Request

# What measures is imported when it is asked for: every other command of `maglab` would have to wait for it too.

CHART_FORMATS = (".png", ".svg")


class What(StrEnum):
    """What can be measured."""

    forwarder = "forwarder"
    latency = "latency"
    table = "table"
    connections = "connections"
    lab = "lab"
    growth = "growth"
    scale = "scale"


MODULES = {
    What.forwarder: "throughput",
    What.latency: "latency",
    What.table: "tables",
    What.connections: "connections",
    What.lab: "labtimes",
    What.growth: "growth",
    What.scale: "scale",
}
NEED_NO_ROOT = (What.table, What.connections)
NEED_NO_WIRE = (*NEED_NO_ROOT, What.lab, What.scale)
CORES = {0, 1}  # one for the generator, one for the forwarder


def run(what: What, request: Request, console: Console, chart: Path | None = None) -> dict[str, Any]:
    """Measures, shows the tables, writes the chart if one is asked for, and returns the document."""
    _check(what, chart)
    from . import report

    document = {"bench": what.value, "machine": machine()} | _measure(what, request, console)
    for table in report.tables(document):
        console.print(table)
    if chart is not None:
        from .chart import draw

        draw(document, chart)
    return document


def _check(what: What, chart: Path | None) -> None:
    """Refuses before anything starts."""
    if chart is not None and (chart.suffix not in CHART_FORMATS or not os.access(chart.parent, os.W_OK)):
        allowed = f"a name that ends with {' or '.join(CHART_FORMATS)} in a directory that exists"
        raise WrongUse(f"--chart {chart}: allowed is {allowed}")
    if what in NEED_NO_ROOT:
        return
    if os.geteuid() != 0:
        raise CannotStart("a bench makes network namespaces, which only root may do: run it with sudo")
    if what not in NEED_NO_WIRE and not os.sched_getaffinity(0) >= CORES:
        raise CannotStart("a bench needs cores 0 and 1, one for the generator and one for the forwarder")


def _measure(what: What, request: Request, console: Console) -> dict[str, Any]:
    measured_by = import_module(f".{MODULES[what]}", __package__)
    if what in NEED_NO_WIRE:
        return dict(measured_by.run(request, console))
    from .yardsticks import Bench

    site = Site.create("bench")
    try:
        return dict(measured_by.run(request, Bench(site), console))
    finally:
        site.clean()


def machine() -> dict[str, Any]:
    """Returns what the figures were measured on."""
    cpu, python = processor(), platform.python_version()
    return {"kernel": platform.release(), "cpu": cpu, "cores": os.cpu_count(), "python": python}
