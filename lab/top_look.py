"""What `maglab top` knows of a running lab at one moment: asked of control sockets, routers' kernels and /proc.

It needs no `Lab`, only a lab that runs: nodes are found in its ledger, their roles in its wiring. A look costs two
requests a Maglev and a few programs a router, and changes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from . import observe, timeline, wiring
from .errors import LabError
from .observe import RouterView
from .site import Process, Site
from .trace import shells_of
from .wiring import Wiring

TICKS_PER_S, PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
TAIL_BYTES = 1 << 15  # of the timeline
DAEMONS = {"maglev": "forwarder", "endpoint": "endpoint"}


@dataclass(frozen=True)
class Usage:
    """What a daemon has used."""

    cpu_s: float
    memory_bytes: int  # resident, but for what it shares with others


@dataclass(frozen=True)
class MaglevLook:
    """A Maglev; the numbers of one that does not answer are 0."""

    answers: bool = False
    ready: bool = False
    draining: bool = False
    forwarded: int = 0
    drops: int = 0
    flows: int = 0  # used within the last second
    occupancy: float = 0.0  # of the connection table
    by_endpoint: Mapping[str, int] = field(default_factory=dict)  # address: packets
    healthy: frozenset[str] = frozenset()  # addresses
    drained: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Look:
    """A lab at one moment."""

    lab: str
    wiring: Wiring
    at: float  # monotonic seconds
    uptime_s: float
    maglevs: Mapping[str, MaglevLook]
    routers: Mapping[str, RouterView]
    usage: Mapping[str, Usage]  # of the nodes whose daemon runs
    events: Sequence[str]  # newest last


class Watcher:
    """Looks at the lab of another process."""

    def __init__(self, site: Site) -> None:
        """LabError if it does not run."""
        self._site = site
        self._wiring = wiring.read(site.directory / wiring.FILE)
        shells = shells_of(site)
        self._routers = {name: self._router(name, shells[name]) for name in self._wiring.names("router")}

    def _router(self, name: str, pid: int) -> Any:
        """Returns what `observe` needs of a router."""
        run = partial(_run, pid)
        control = str(self._site.directory / name / "bird.ctl")
        peers = [SimpleNamespace(node=SimpleNamespace(name=each, role="maglev")) for each in self._maglevs_behind(name)]
        return SimpleNamespace(
            name=name,
            pid=pid,
            run=run,
            birdc=lambda *command: run("birdc", "-s", control, *command).stdout,
            neighbours=lambda role: [(None, peer) for peer in peers if peer.node.role == role],
        )

    def _maglevs_behind(self, router: str) -> list[str]:
        """Returns the Maglevs that are wired to a router, or to a switch that is."""
        wires = self._wiring
        near = wires.neighbours(router)
        near += [each for name in near if wires.role_of[name] == "switch" for each in wires.neighbours(name)]
        return [name for name in wires.names("maglev") if name in near]

    def look(self) -> Look:
        """Returns what can be seen now; LabError if the lab has ended."""
        if not self._site.directory.exists():
            raise LabError(f"the lab {self._site.id} has ended")
        began = (self._site.directory / wiring.FILE).stat().st_mtime
        return Look(
            self._site.id,
            self._wiring,
            time.monotonic(),
            time.time() - began,
            {name: self._maglev(name) for name in self._wiring.names("maglev")},
            {name: observe.router_view(router) for name, router in self._routers.items()},
            self._usage(),
            events(self._site.directory / timeline.FILE),
        )

    def _maglev(self, name: str) -> MaglevLook:
        view = observe.maglev_view(self._site.directory / name / "control.sock")
        return of_view(view.status, view.statistics) if view else MaglevLook()

    def _usage(self) -> dict[str, Usage]:
        newest: dict[str, Process] = {}
        for process in self._site.ledger():
            name, _, what = process.what.partition(": ")
            if what == DAEMONS.get(self._wiring.role_of.get(name, "")):
                newest[name] = process
        found = {name: usage(process) for name, process in newest.items()}
        return {name: each for name, each in found.items() if each is not None}


def of_view(status: Mapping[str, Any], statistics: Mapping[str, Any]) -> MaglevLook:
    """Returns a Maglev from the documents of its control socket."""
    pools, table = status["pools"].values(), statistics["connections"]
    by_endpoint: dict[str, int] = {}
    for entry in statistics["vips"]:
        by_endpoint[entry["endpoint"]] = by_endpoint.get(entry["endpoint"], 0) + entry["packets"]
    return MaglevLook(
        True,
        status["ready"],
        status["draining"],
        statistics["forwarded"],
        sum(statistics["drops"].values()),
        table["active"],
        table["entries"] / max(1, table["capacity"]),
        by_endpoint,
        frozenset(address for pool in pools for address in pool["healthy"]),
        frozenset(address for pool in pools for address in pool["drained"]),
    )


def usage(process: Process) -> Usage | None:
    """Returns what a process has used so far, None if it has ended (proc(5))."""
    try:
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        pages = Path(f"/proc/{process.pid}/statm").read_text().split()
    except OSError:
        return None
    if int(ticks[19]) != process.start_ticks:
        return None
    return Usage((int(ticks[11]) + int(ticks[12])) / TICKS_PER_S, (int(pages[1]) - int(pages[2])) * PAGE_BYTES)


def events(path: Path) -> list[str]:
    """Returns the last events of a timeline, a line each."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []  # nothing has happened
    return [str(event) for line in lines if (event := _event(line))]


def _event(line: bytes) -> timeline.Event | None:
    """Returns an event, None for a sample, or a line that is cut."""
    try:
        document = json.loads(line)
        if document.pop("type") != "event":
            return None
        return timeline.Event(**document)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _run(pid: int, *command: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command on a node; LabError, as `LabNode.run`, if it fails."""
    command = ("mnexec", "-a", str(pid), *command)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(command[3:])}: {(done.stderr or done.stdout).strip()}")
    return done
