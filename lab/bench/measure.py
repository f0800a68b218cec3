"""One measurement: a wire, a forwarder, a flood, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import LabError
from .traffic import Counts, Generator, Traffic, generating
from .wiring import FORWARDER_CORE, GENERATOR_CORE, wired
from .yardsticks import Bench, FlowsMet, Yardstick

POLL_S = 0.02
WARM_UP_S = 2.0  # at most, until every flow has been met: the slowest forwarders never meet them all
FIRST_PACKET_S = 10.0
RATED_WARM_UP_S = 0.3
SLACK_S = 5.0  # by which a flood may outlast its measurement
NEARLY_ALL = 0.99  # of the flows: a connection table that is nearly full refuses some
IDLE_FIELDS = (3, 4)  # of a core's line in /proc/stat: idle, and idle while waiting for a disk

Cores = dict[int, tuple[int, int]]  # number: (busy, all) clock ticks since the start of the machine


@dataclass(frozen=True)
class Run:
    """What one run has shown."""

    pps: float  # packets a second that came back
    offered_pps: float
    loss: float  # share of the packets sent that did not come back
    generator_cpu: float  # share of its core's time that was not idle
    forwarder_cpu: float
    flows_met: int | None = None  # entries in the forwarder's connection table afterwards, if it tells

    @property
    def ns_per_packet(self) -> float:
        """Returns how long the forwarder's core worked for each packet."""
        return 1e9 * self.forwarder_cpu / self.pps if self.pps else float("inf")


@dataclass(frozen=True)
class Flood:
    """How to measure: what is sent, for how long, at which rate (0: as fast as the generator is)."""

    seconds: float
    rate: float = 0.0
    traffic: Traffic = field(default_factory=Traffic)
    warm_up_s: float = WARM_UP_S


def measure(bench: Bench, yardstick: Yardstick, flood: Flood) -> Run:
    """Returns what a yardstick does with a flood."""
    with wired(bench.site) as wire:
        flows_met = yardstick.start(bench, wire)
        with generating(wire, flood.traffic, yardstick.count_early) as generator:
            if flood.rate:
                return _at_rate(generator, yardstick, flood)
            _warm_up(generator, yardstick, flood, flows_met)
            run = _at_full_speed(generator, yardstick, flood.seconds)
        return replace(run, flows_met=flows_met()) if flows_met else run


def _warm_up(generator: Generator, yardstick: Yardstick, flood: Flood, flows_met: FlowsMet | None) -> None:
    """Starts the flood and waits until packets come back and, if there is time, every flow has been met."""
    limit_s = FIRST_PACKET_S + flood.warm_up_s
    generator.flood(limit_s + flood.seconds + SLACK_S)
    start = time.monotonic()
    while (back := yardstick.came_back(generator.count())) == 0 or time.monotonic() - start < flood.warm_up_s:
        met = flows_met() if flows_met else back / 2
        if back and met >= NEARLY_ALL * flood.traffic.flows:
            return
        if back == 0 and time.monotonic() - start > FIRST_PACKET_S:
            raise LabError(f"no packet came back within {FIRST_PACKET_S:g} s")
        time.sleep(POLL_S)


def _at_full_speed(generator: Generator, yardstick: Yardstick, seconds: float) -> Run:
    cores, before = core_times(), generator.count()
    time.sleep(seconds)  # the measurement itself
    counted, cores_after = generator.count().since(before), core_times()
    return _run(counted, yardstick.came_back(counted), counted.time_ns / 1e9, busy_shares(cores, cores_after))


def _at_rate(generator: Generator, yardstick: Yardstick, flood: Flood) -> Run:
    """Floods at a rate, and waits for the last packet: what is missing then is lost, and not under way."""
    generator.flood(RATED_WARM_UP_S, flood.rate)
    time.sleep(RATED_WARM_UP_S)
    cores, before = core_times(), generator.halt()
    generator.flood(flood.seconds, flood.rate)
    time.sleep(flood.seconds)  # the measurement itself
    cores_after = core_times()
    counted = generator.halt().since(before)
    return _run(counted, yardstick.came_back(counted), flood.seconds, busy_shares(cores, cores_after))


def _run(counted: Counts, back: int, elapsed_s: float, busy: dict[int, float]) -> Run:
    return Run(
        pps=back / elapsed_s,
        offered_pps=counted.sent / elapsed_s,
        loss=max(0.0, 1 - back / counted.sent) if counted.sent else 0.0,  # what was under way before may come back now
        generator_cpu=busy[GENERATOR_CORE],
        forwarder_cpu=busy[FORWARDER_CORE],
    )


def core_times() -> Cores:
    """Returns the clock ticks of every core until now."""
    return parse_core_times(Path("/proc/stat").read_text())


def parse_core_times(text: str) -> Cores:
    """Returns busy and all clock ticks of every core, from the text of /proc/stat (proc(5))."""
    cores = {}
    for line in text.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = list(map(int, fields[:8]))  # guests' time, which follows, is counted as user's already
            cores[int(name[3:])] = (sum(ticks) - sum(ticks[i] for i in IDLE_FIELDS), sum(ticks))
    return cores


def busy_shares(before: Cores, after: Cores) -> dict[int, float]:
    """Returns the share of its time that every core was busy between two moments."""
    return {
        core: (busy - before[core][0]) / max(1, total - before[core][1])
        for core, (busy, total) in after.items()
        if core in before
    }
