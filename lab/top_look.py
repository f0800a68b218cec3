"""What `maglab top` knows of a running lab at one moment: asked of control sockets, routers' kernels and /proc.

It needs no `Lab`, only a lab that runs: nodes are found in its ledger, their roles in its wiring. A look costs two
requests a Maglev and starts no program, and it changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from maglev.engine.control import ControlError, text

from . import frr, observe, timeline, wiring
from .bird import LinuxRouting
from .errors import LabError
from .frr import FrrRouting
from .observe import RouterView
from .sdn import routing
from .sdn.routing import SwitchRouting
from .site import Site
from .trace import shells_of
from .usage import Meter, Usage, processes
from .wiring import Wiring

TAIL_BYTES = 1 << 15  # of the timeline


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
    usage: Mapping[str, Usage]
    events: Sequence[str]  # newest last


class Watcher:
    """Looks at the lab of another process."""

    def __init__(self, site: Site) -> None:
        """LabError if it does not run."""
        self._site = site
        self._wiring = wiring.read(site.directory / wiring.FILE)
        self._shells = shells_of(site)
        self._meter = Meter()
        self._routers = {name: self._router(name) for name in self._wiring.names("router")}

    def _router(self, name: str) -> Any:
        """Returns what `observe` needs of a router."""
        pid, directory = self._shells[name], self._site.directory / name
        if (directory / routing.DOCUMENT).exists():
            return SimpleNamespace(name=name, routing=SwitchRouting(pid, directory))
        asked = FrrRouting if (directory / frr.CONFIGURATION).exists() else LinuxRouting
        return SimpleNamespace(name=name, routing=asked(pid, directory, self._maglevs_behind(name)))

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
            self._meter.read(processes(self._shells)),
            events(self._site.directory / timeline.FILE),
        )

    def counters(self) -> dict[str, str | None]:
        """Returns the metrics of each Maglev, as text; None of one that does not answer."""
        return {name: self._metrics(name) for name in self._wiring.names("maglev")}

    def _metrics(self, name: str) -> str | None:
        try:
            return text(self._site.directory / name / "control.sock", "/metrics")
        except ControlError:
            return None

    def _maglev(self, name: str) -> MaglevLook:
        view = observe.maglev_view(self._site.directory / name / "control.sock")
        return of_view(view.status, view.statistics) if view else MaglevLook()


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
