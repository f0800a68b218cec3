"""`maglab bench lab`: how long the rack takes to come up, to serve its first request, and to go."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console

from ..errors import LabError
from .request import Request, progress

RUNS = 5
TOPOLOGY = "rack"
EVENTS = ("up", "first curl", "gone")


def run(request: Request, console: Console) -> dict[str, Any]:
    """Measures, and returns the document."""
    runs = request.runs_or(RUNS)
    with progress(console, runs) as step:
        taken = []
        for number in range(1, runs + 1):
            step(f"run {number}: a {TOPOLOGY} comes and goes")
            taken.append(_times_s())
    return {"topology": TOPOLOGY, "rows": rows_of(taken)}


def _times_s() -> tuple[float, ...]:
    """Returns how long a lab took for each event, in seconds."""
    from ..laboratory import Lab  # its Mininet is not needed to read times

    moments = [time.monotonic()]
    with Lab(TOPOLOGY) as lab:
        moments.append(time.monotonic())
        done = lab.run("c1", f"curl --silent --show-error --fail --max-time 10 http://{lab.config.vips[0].address}/")
        if done.returncode != 0:
            raise LabError(f"the lab's first request failed: {done.stderr.strip()}")
        moments.append(time.monotonic())
    moments.append(time.monotonic())
    return tuple(after - before for before, after in pairwise(moments))


def rows_of(taken: Sequence[tuple[float, ...]]) -> list[dict[str, Any]]:
    """Returns a row for each event: the median, and all runs."""
    return [
        {"event": event, "s": round(statistics.median(column), 3), "runs": [round(s, 3) for s in column]}
        for event, column in zip(EVENTS, zip(*taken, strict=True), strict=True)
    ]
