"""`python -m maglev replay`: what the forwarder of a Maglev would send out for the frames of a capture file.

The way to look at a forwarder, or to test one, without root, a network or a clock.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .config import Config
from .engine import pcap
from .errors import IGNORED, MaglevError, Reason
from .flow import Address, pack_address
from .forwarding import Forwarder, Statistics
from .selection import MapBuilder, connection_capacity, connection_table, fragment_limits, most_per_source


def run(
    config: Config, name: str, down: Collection[Address], source: Path, target: Path, engine: str = "reference"
) -> None:
    """Replays `source` into `target` as the Maglev called `name`, with the endpoints `down` unhealthy.

    `engine` is `reference` or `fast`: either decides the same.
    MaglevError for a Maglev or an endpoint that the configuration does not have, or a file that cannot be used.
    """
    maglev = config.maglev(name)
    _check_known(config, down)
    vips = MapBuilder().build(config, maglev.shard, lambda member: member.address not in down)
    forwarder = _forwarder(engine, name, tuple(map(pack_address, maglev.addresses)), config)
    forwarder.vips = vips
    _print_summary(pcap.replay(source, target, forwarder))


def _forwarder(engine: str, name: str, own: tuple[bytes, ...], config: Config) -> pcap.Decider:
    options: Any = {
        "fragment_limits": fragment_limits(config),
        "name": name,
        "trace_reports_per_s": config.forwarder.trace_reports_per_s,
    }
    if engine == "reference":
        return Forwarder(own, connection_table(config), **options)
    from .fast.forwarder import FastForwarder  # brings in the compiler

    idle_timeout_s = config.forwarder.connection_table.idle_timeout_s
    most = most_per_source(config)
    return FastForwarder(own, connection_capacity(config), idle_timeout_s, most_per_source=most, **options)


def _check_known(config: Config, down: Collection[Address]) -> None:
    endpoints = {member.address for vip in config.vips for member in config.vip_members(vip)}
    for address in down:
        if address not in endpoints:
            allowed = ", ".join(map(str, sorted(endpoints, key=pack_address)))
            raise MaglevError(f"--down {address}: no VIP's pool lists it; allowed: {allowed}")


def _print_summary(statistics: Statistics) -> None:
    print(f"forwarded {statistics.forwarded.total()}", file=sys.stderr)
    if statistics.redirected:
        print(f"redirected {statistics.redirected.total()}", file=sys.stderr)
    for reason, count in sorted(statistics.reasons.items()):
        fate = "ignored" if reason in IGNORED else "held" if reason == Reason.HELD else "dropped"
        print(f"{fate} {count} {reason}", file=sys.stderr)
