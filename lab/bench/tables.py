"""`maglab bench table`: how long a lookup table takes to build, next to the paper's figures (Maglev §5.3)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console

from maglev.hashing import lookup_table

from .request import Request, progress
from .yardsticks import backend_addresses

RUNS = 11


class Size(NamedTuple):
    """A table to build, and how long the paper's took."""

    backends: int
    table_size: int
    paper_ms: float | None


SIZES = (Size(1000, 65537, 1.8), Size(1000, 655373, 22.9), Size(10_000, 655373, None))


def run(request: Request, console: Console) -> dict[str, Any]:
    """Measures, and returns the document."""
    runs = request.runs_or(RUNS)
    with progress(console, len(SIZES)) as step:
        return {"rows": [_row(size, runs, step) for size in SIZES]}


def _row(size: Size, runs: int, step: Callable[[str], None]) -> dict[str, Any]:
    step(f"{size.backends} backends, {size.table_size} slots")
    names = backend_addresses(size.backends)
    times_ms = [1e3 * s for s in timed(lambda: lookup_table(names, size.table_size), runs)]
    return {**size._asdict(), "ms": round(statistics.median(times_ms), 2), "runs": [round(ms, 2) for ms in times_ms]}


def timed(work: Callable[[], object], runs: int) -> list[float]:
    """Returns how long each of `runs` calls took, in seconds, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times
