"""One measurement: a wire, a forwarder, a flood, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..waiting import wait_until
from .traffic import Counts, Generator, Traffic, generating
from .wiring import FORWARDER_CORE, GENERATOR_CORE, wired
from .yardsticks import Bench, Yardstick

WARM_UP_S = 2.0  # at most, until every flow has been met: the slowest forwarders never meet them all
LOOK_S = 0.2
MEETING_SHARE = 0.7  # of its speed, at which a forwarder meets new flows
FIRST_PACKET_S = 10.0
RATED_WARM_UP_S = 0.3
SLACK_S = 5.0  # by which a flood may outlast its measurement
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
        with generating(wire, flood.traffic) as generator:
            if flood.rate:
                return _at_rate(generator, yardstick, flood)
            _warm_up(generator, yardstick, flood)
            run = _at_full_speed(generator, yardstick, flood.seconds)
        return replace(run, flows_met=flows_met()) if flows_met else run


def _warm_up(generator: Generator, yardstick: Yardstick, flood: Flood) -> None:
    """Has the forwarder meet every flow once, as long as there is time, and then lets the flood loose.

    A forwarder that is flooded loses most packets, and would meet the last flows late: so its speed is looked at, and
    the flows are sent one after the other a little slower than that.
    """
    generator.flood(FIRST_PACKET_S)
    wait_until(
        lambda: "" if yardstick.came_back(generator.count()) else "none yet", FIRST_PACKET_S, "a packet's return"
    )
    time.sleep(LOOK_S)  # the very first packets are slow
    before = generator.count()
    time.sleep(LOOK_S)
    seen = generator.count().since(before)
    speed = 1e9 * yardstick.came_back(seen) / seen.time_ns
    generator.halt()
    if speed > 0:
        needed_s = flood.traffic.flows / (MEETING_SHARE * speed)
        _send(generator, min(needed_s, flood.warm_up_s), MEETING_SHARE * speed)
    generator.flood(flood.seconds + SLACK_S)
    time.sleep(LOOK_S)


def _send(generator: Generator, seconds: float, rate: float) -> None:
    """Sends at a rate, and waits until all is through."""
    generator.flood(seconds, rate)
    time.sleep(seconds)
    generator.halt()


def _at_full_speed(generator: Generator, yardstick: Yardstick, seconds: float) -> Run:
    cores, before = core_times(), generator.count()
    time.sleep(seconds)  # the measurement itself
    counted, cores_after = generator.count().since(before), core_times()
    return _run(counted, yardstick.came_back(counted), counted.time_ns / 1e9, busy_shares(cores, cores_after))


def _at_rate(generator: Generator, yardstick: Yardstick, flood: Flood) -> Run:
    """Floods at a rate, and waits for the last packet: what is missing then is lost, and not under way."""
    _send(generator, RATED_WARM_UP_S, flood.rate)
    cores, before = core_times(), generator.count()
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
