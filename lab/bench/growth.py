"""`maglab bench growth`: what becomes of the packets a second as VIPs, backends, connections and frames grow.

One thing at a time: everything else stays as in `maglab bench forwarder`.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console

from ..errors import CannotStart, LabError
from . import needs
from . import traffic as generator
from .measure import Flood, Run, measure
from .request import Request, progress
from .traffic import Traffic
from .yardsticks import Bench, Cluster, maglev

SECONDS, RUNS = 1.0, 3
WARM_UP_S = 40.0  # at most: a million flows have to be met, by the slowest engine too
ENGINES = ("xdp", "ring", "socket")
DEFAULT_ENGINES = ("xdp", "ring")


class Point(NamedTuple):
    """One configuration and the traffic for it."""

    cluster: Cluster = Cluster()
    traffic: Traffic = Traffic()


def _connections(count: int) -> Point:
    return Point(traffic=Traffic(flows=count)) if count else Point(cluster=Cluster(connection_table=False))


@dataclass(frozen=True)
class Series:
    """One thing that grows."""

    name: str
    points: dict[str, Point]  # by what stands on the axis


def _numbered(name: str, numbers: tuple[int, ...], point: Callable[[int], Point]) -> Series:
    return Series(name, {f"{number:,}": point(number) for number in numbers})


SERIES = (
    _numbered("VIPs", (1, 100, 10_000), lambda count: Point(Cluster(vips=count), Traffic(vips=count))),
    _numbered("backends", (10, 1_000, 10_000), lambda count: Point(Cluster(backends=count))),
    _numbered("live connections", (0, 100_000, 1_000_000), _connections),
    _numbered("bytes a frame", (64, 512, 1_400), lambda length: Point(traffic=Traffic(length=length))),
    Series(
        "packets",
        {
            "TCP SYN": Point(traffic=Traffic(syn_every=1)),
            "TCP": Point(),
            "UDP": Point(Cluster(protocol="udp"), Traffic(udp=True)),
            "one flow": Point(traffic=Traffic(flows=1)),
        },
    ),
)


class Place(NamedTuple):
    """One engine at one point of a series."""

    series: str
    x: str
    engine: str
    point: Point

    def __str__(self) -> str:
        return f"{self.engine}, {self.series}: {self.x}"


def run(request: Request, bench: Bench, console: Console) -> dict[str, Any]:
    """Measures, and returns the document."""
    if lacking := needs.missing(generator.NEEDS):
        raise CannotStart(f"the generator cannot be made: {lacking}")
    seconds, runs = request.seconds_or(SECONDS), request.runs_or(RUNS)
    wanted = request.chosen(ENGINES) if request.engines else list(DEFAULT_ENGINES)
    left_out = {engine: why for engine in wanted if (why := maglev(engine).missing())}
    places = [
        Place(series.name, x, engine, point)
        for series in SERIES
        for x, point in series.points.items()
        for engine in wanted
        if engine not in left_out
    ]
    measured: dict[Place, list[Run]] = defaultdict(list)
    with progress(console, runs * len(places)) as step:
        for number in range(1, runs + 1):
            for place in places:
                step(f"run {number}: {place}")
                _measure(bench, place, seconds, measured, left_out)
    rows = [row_of(place.series, place.x, place.engine, taken) for place, taken in measured.items()]
    return {"seconds": seconds, "runs": runs, "rows": rows, "left_out": left_out}


def _measure(
    bench: Bench, place: Place, seconds: float, measured: dict[Place, list[Run]], left_out: dict[str, str]
) -> None:
    flood = Flood(seconds, traffic=place.point.traffic, warm_up_s=WARM_UP_S)
    try:
        taken = measure(bench, maglev(place.engine, cluster=place.point.cluster), flood)
    except LabError as error:
        left_out[str(place)] = str(error)
    else:
        measured[place].append(taken)


def row_of(series: str, x: str, engine: str, taken: list[Run]) -> dict[str, Any]:
    """Returns the medians of one engine at one point."""
    return {
        "series": series,
        "x": x,
        "engine": engine,
        "pps": round(statistics.median(run.pps for run in taken)),
        "runs": [round(run.pps) for run in taken],
        "loss": round(statistics.median(run.loss for run in taken), 6),
        "flows_met": taken[-1].flows_met,
    }
