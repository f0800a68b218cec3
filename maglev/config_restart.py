"""What a running forwarder cannot take over from a new configuration: who it is, and what it has allocated. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .config_objects import Config, MaglevMachine
from .errors import Problem

FIXED = (  # fields of `forwarder`
    "engine",
    "connection_table",
    "threads",
    "busy_poll",
    "fragments",
    "icmp_errors_per_s",
    "trace_reports_per_s",
)
AS_BEFORE = "the value it had until a restart"


def obstacles(old: Config, new: Config, maglev: MaglevMachine, source: str) -> Iterator[Problem]:
    """Yields why the forwarder of `maglev` cannot go from one configuration to another, which came from `source`."""
    for field in FIXED:
        value = getattr(new.forwarder, field)
        if value != getattr(old.forwarder, field):
            yield Problem(source, f"forwarder.{field}", value, AS_BEFORE)
    if new.metrics != old.metrics:
        yield Problem(source, "metrics.port", new.metrics.port, AS_BEFORE)
    if maglev not in new.maglevs:
        addresses = " and ".join(map(str, maglev.addresses))
        expected = f"{maglev.name} with {addresses} and shard {maglev.shard}"
        yield Problem(source, "maglevs", [each.name for each in new.maglevs], expected)
