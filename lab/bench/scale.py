"""`maglab bench scale`: how large a lab this machine takes. The topology `scale` grows by racks, until it breaks.

Each size runs in a process of its own (`one_size`), which this one watches: it ends a size that takes too long, or all
of it long before memory runs out. The first size that does not come up, converge and serve ends the bench, and its
reason is what breaks first here. What would need more memory or time than is left is not begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import WrongUse
from ..site import sites
from . import report
from .request import Request, progress

MAGLEVS, ENDPOINTS, CLIENTS = 4, 16, 2  # of each rack
RACKS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
QUICK_RACKS = RACKS[:2]
WINDOW_S = 5.0  # in which an idle lab's processor time is measured
SIZE_S, WHOLE_S = 300.0, 1800.0  # at most, for one size and for all
KEPT_FREE, KEPT_FREE_BYTES = 0.1, 1 << 29  # of the memory, for everybody else: this share, and no less than that
GROWS_FASTER = 1.3  # than its nodes a lab's memory may, for all that we know before we have it
LOOK_S = 0.1  # between two looks at the memory
FAREWELL_S = 20.0  # in which a lab that is ended takes itself away; then it is taken away


@dataclass(frozen=True)
class Size:
    """A lab of so many racks."""

    racks: int

    @property
    def options(self) -> dict[str, int]:
        """Returns what the topology is told."""
        counts = {"maglevs": MAGLEVS, "endpoints": ENDPOINTS, "clients": CLIENTS}
        return {"routers": self.racks} | {what: each * self.racks for what, each in counts.items()}

    @property
    def nodes(self) -> int:
        """Returns the number of all nodes, the core among them."""
        return sum(self.options.values()) + 1

    def __str__(self) -> str:
        counts = self.options
        racks = f"{self.racks} rack{'' if self.racks == 1 else 's'}"
        machines = f"{counts['maglevs']} Maglevs, {counts['endpoints']} endpoints, {counts['clients']} clients"
        return f"{self.nodes} nodes ({racks}, {machines})"


@dataclass(frozen=True)
class Broken:
    """Why a size did not come up, and while what was done; or why it was not begun."""

    why: str
    stage: str = ""

    def __str__(self) -> str:
        return f"{self.why}, while {self.stage}" if self.stage else self.why


def run(request: Request, console: Console) -> dict[str, Any]:
    """Measures, and returns the document; what was measured is shown, too, when Ctrl-C ends it."""
    if request.engines or request.runs is not None:
        raise WrongUse("bench scale runs each size once, with the engine that a lab takes; allowed: --seconds, --quick")
    window_s, limits = request.seconds_or(WINDOW_S), limits_here()
    sizes = [Size(racks) for racks in (QUICK_RACKS if request.quick else RACKS)]
    rows: list[dict[str, Any]] = []
    try:
        broken = _grow(rows, sizes, window_s, console)
    except KeyboardInterrupt:
        for part in report.tables({"bench": "scale"} | document_of(rows, sizes[len(rows)], Broken("interrupted"))):
            console.print(part)
        raise
    return document_of(rows, sizes[min(len(rows), len(sizes) - 1)], broken) | {"limits": limits}


def _grow(rows: list[dict[str, Any]], sizes: Sequence[Size], window_s: float, console: Console) -> Broken | None:
    """Adds a row for each size; returns what broke the first that did, None if none did."""
    began = time.monotonic()
    with progress(console, len(sizes)) as step:
        for size in sizes:
            step(str(size))
            left_s = WHOLE_S - (time.monotonic() - began)
            if broken := too_much(size, rows, available_bytes(), left_s):
                return broken
            found = measured(size, window_s, min(SIZE_S, left_s))
            if isinstance(found, Broken):
                return found
            rows.append(found)
    return None


def document_of(rows: Sequence[dict[str, Any]], last: Size, broken: Broken | None) -> dict[str, Any]:
    """Returns rows, and in words which was the largest and what ended it."""
    largest = Size(rows[-1]["racks"]) if rows else None
    ended = f"the next, {last}: {broken}" if broken else "no larger one was tried"
    return {
        "rows": list(rows),
        "largest": largest.nodes if largest else 0,
        "ended": {"nodes": last.nodes, "why": broken.why, "stage": broken.stage} if broken else None,
        "said": [f"the largest lab that came up, converged and served: {largest or 'none'}", ended],
    }


def too_much(size: Size, rows: Sequence[Mapping[str, Any]], available: int, left_s: float) -> Broken | None:
    """Returns why a size is better not begun, by what the one before it took; None if it may be."""
    if left_s <= 0:
        return Broken(f"not begun, since {WHOLE_S:g} s are over")
    if not rows:
        return None
    last = rows[-1]
    factor = GROWS_FASTER * size.nodes / last["nodes"]
    expected = factor * max(last["memory_bytes"], last["taken_bytes"])
    if expected > available - kept_free_bytes():
        free = f"{available / 1e6:,.0f} MB are free, of which {kept_free_bytes() / 1e6:,.0f} are left to others"
        return Broken(f"not begun, since it may take {expected / 1e6:,.0f} MB, and {free}")
    if (expected_s := factor * last["total_s"]) > left_s:
        return Broken(f"not begun, since it may take {expected_s:.0f} s, and {left_s:.0f} s are left")
    return None


# One size


def measured(size: Size, window_s: float, limit_s: float) -> dict[str, Any] | Broken:
    """Returns what a size takes, or why it breaks; nothing is left of it when this returns."""
    told = json.dumps({"options": size.options, "window_s": window_s, "limit_s": limit_s})
    command = [sys.executable, "-m", "lab.bench.one_size", told]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, start_new_session=True, text=True, cwd=Path(__file__).parents[2], **pipes)
    began = time.monotonic()
    try:
        found = watched(process, began + limit_s)
    finally:
        end(process)
    if isinstance(found, Broken):
        return found
    row = {"racks": size.racks, "nodes": size.nodes, **size.options, **found}
    return row | {"total_s": round(time.monotonic() - began, 1)}


def watched(process: subprocess.Popen[str], deadline: float) -> dict[str, Any] | Broken:
    """Returns what the process that runs a size says at last; or why it was given up, as soon as there is a reason."""
    stage = "beginning"
    for line in _lines(process):
        if line is None:
            if available_bytes() < kept_free_bytes():
                return Broken("memory runs out", stage)
            if time.monotonic() > deadline:
                return Broken("it takes too long", stage)
        elif "stage" in line:
            stage = line["stage"]
        elif "error" in line:
            return Broken(line["error"], stage)
        else:
            return line
    assert process.stderr is not None
    last_words = process.stderr.read().strip().rpartition("\n")[2] or "nothing"
    return Broken(f"its process ended with status {process.wait()} and said: {last_words}", stage)


def _lines(process: subprocess.Popen[str]) -> Iterator[dict[str, Any] | None]:
    """Yields each line that a process says, and None whenever `LOOK_S` have passed, until it says no more."""
    assert process.stdout is not None
    descriptor, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            yield None
            if selector.select(LOOK_S):
                if not (read := os.read(descriptor, 65536)):
                    return
                *lines, rest = (rest + read).split(b"\n")
                yield from map(json.loads, lines)


def end(process: subprocess.Popen[str]) -> None:
    """Ends the process of a size, and sees to it that its lab goes: it has some time to do so itself."""
    with process:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(FAREWELL_S)
        process.kill()
        process.wait()
        for site in sites():
            if site.owner is not None and site.owner.pid == process.pid:
                site.clean(FAREWELL_S)


# What there is


def available_bytes() -> int:
    """Returns the memory that can be had without pushing anybody out: the machine's, or less where we may have less."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    there = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    for directory in [place := Path("/sys/fs/cgroup") / group, *place.parents]:
        with contextlib.suppress(OSError, ValueError):  # no limit here, or control groups of the first version
            may_have = int((directory / "memory.max").read_text())
            there = min(there, may_have - int((directory / "memory.current").read_text()))
    return there


def kept_free_bytes() -> int:
    """Returns how much memory is left alone."""
    return max(KEPT_FREE_BYTES, int(KEPT_FREE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))


def limits_here() -> dict[str, Any]:
    """Returns of what else this machine may not have enough."""
    return {
        "available_bytes": available_bytes(),
        "cores": len(os.sched_getaffinity(0)),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "processes": resource.getrlimit(resource.RLIMIT_NPROC)[0],
        "terminals": int(Path("/proc/sys/kernel/pty/max").read_text()),
    }
