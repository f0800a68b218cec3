"""`maglab bench lab`: how long the rack takes to come up, to serve its first request, and to go; and how long
forwarders that start at once take until they forward.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..errors import LabError
from .request import Request, progress

if TYPE_CHECKING:
    from ..laboratory import Lab

RUNS = 5
TOPOLOGY = "rack"
FORWARDERS = 6
FORWARDING_TIMEOUT_S = 30.0
EVENTS = ("up", "first curl", "gone", f"first of {FORWARDERS} forwards", f"last of {FORWARDERS} forwards")


def run(request: Request, console: Console) -> dict[str, Any]:
    """Measures, and returns the document."""
    runs = request.runs_or(RUNS)
    with progress(console, runs) as step:
        taken = []
        for number in range(1, runs + 1):
            step(f"run {number}: a {TOPOLOGY} comes and goes")
            taken.append((*_times_s(), *_first_packets_s()))
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


def _first_packets_s() -> tuple[float, float]:
    """Returns how long the quickest and the slowest of several forwarders took from the start of all to a packet."""
    from ..laboratory import Lab

    with Lab(TOPOLOGY, maglevs=FORWARDERS) as lab:
        maglevs = [lab.node(name) for name in lab.maglevs]
        for maglev in maglevs:
            maglev.stop_daemons(names=["forwarder"])
        watcher = _watch(lab)
        began = time.monotonic()
        for maglev in maglevs:
            maglev.start_maglev("forwarder", "--maglev", maglev.name)
        try:
            forwarded, _ = watcher.communicate(timeout=FORWARDING_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise LabError(f"not every forwarder forwarded a packet within {FORWARDING_TIMEOUT_S:g} s") from None
    moments = [float(line.split()[1]) for line in forwarded.splitlines()]
    if len(moments) < FORWARDERS:
        raise LabError(f"only {len(moments)} of {FORWARDERS} forwarders were seen to forward: the sender has ended")
    return min(moments) - began, max(moments) - began


def _watch(lab: Lab) -> subprocess.Popen[bytes]:
    """Starts to send packets to every Maglev from its router; returns the process that says when one comes back."""
    from ..nodes import project_python

    router, vip = lab.node("r1"), lab.config.vips[0]
    wires = [
        f"{own}={other.node.run('cat', f'/sys/class/net/{other}/address').stdout.strip()}"
        for own, other in router.neighbours("maglev")
    ]
    options = ["--client", lab.node("c1").address, "--vip", str(vip.address), "--port", str(vip.port)]
    watcher: subprocess.Popen[bytes] = router.start_piped(
        "first_packets", [project_python(), "-m", "lab.bench.first_packets", *options, *wires]
    )
    assert watcher.stdout is not None
    if watcher.stdout.readline() != b"ready\n":
        raise LabError(f"nobody sends packets: see {router.directory / 'first_packets.log'}")
    return watcher


def rows_of(taken: Sequence[tuple[float, ...]]) -> list[dict[str, Any]]:
    """Returns a row for each event: the median, and all runs."""
    return [
        {"event": event, "s": round(statistics.median(column), 3), "runs": [round(s, 3) for s in column]}
        for event, column in zip(EVENTS, zip(*taken, strict=True), strict=True)
    ]
