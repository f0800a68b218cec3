"""What should follow from a fault: the difference that it makes to what a lab looks like once it has settled.

A fault says this of itself, in the same few words whatever it is; `convergence` waits for all open faults' effects
together. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from maglev.flow import pack_address

if TYPE_CHECKING:  # whoever only makes faults needs no configurations
    from maglev.config_objects import Config, HealthCheck

NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Effect:
    """Names of nodes, by what becomes of them while a fault lasts; without any, all goes on as before."""

    withdrawn: frozenset[str] = NOBODY  # Maglevs that no router may send to
    gone: frozenset[str] = NOBODY  # routers that nobody hears, nor sends by; and name servers
    apart: frozenset[tuple[str, str]] = frozenset()  # (router, Maglev or router): may not send to each other
    unhealthy: frozenset[str] = NOBODY  # endpoints that no Maglev may find healthy
    drained: frozenset[str] = NOBODY  # endpoints of weight 0
    unsettled: frozenset[str] = NOBODY  # nodes that come and go, or see others do so: nothing is expected of them

    def __or__(self, other: Effect) -> Effect:
        return Effect(**{field.name: getattr(self, field.name) | getattr(other, field.name) for field in fields(self)})


NO_EFFECT = Effect()


def together(effects: Iterable[Effect]) -> Effect:
    """Returns the effect of several faults at once."""
    total = Effect()
    for effect in effects:
        total |= effect
    return total


# What is lost of an endpoint, and which checks of it, by the way they go, then fail (`config_objects.HealthCheck`).
SERVERS_KILLED, SERVERS_FROZEN, DECAPSULATION_LOST, ALL_LOST = (
    "its servers were killed", "its servers are frozen", "its decapsulation is lost", "nothing reaches it",
)  # fmt: skip
TYPES = frozenset({"ping", "tcp", "http", "udp", "dns", "script"})
FAILING = {
    SERVERS_KILLED: {"address": TYPES - {"ping"}, "vip": TYPES - {"ping"}},
    SERVERS_FROZEN: {"address": TYPES - {"ping", "tcp"}, "vip": TYPES - {"ping", "tcp"}},  # its kernel still accepts
    DECAPSULATION_LOST: {"address": frozenset[str](), "vip": TYPES},
    ALL_LOST: {"address": TYPES, "vip": TYPES},
}


def notices(check: HealthCheck, lost: Collection[str]) -> bool:
    """Says whether a health check fails when these things are lost."""
    return any(check.type in FAILING[what][check.through] for what in lost)


def of_endpoint(config: Config, name: str, addresses: Iterable[str], lost: Collection[str]) -> Effect:
    """Returns what a loss at an endpoint leads to: all pools find it unhealthy, or none does, or it is unsettled.

    A loss that no check of a pool looks at leaves the endpoint in that pool's table: a black hole.
    """
    packed = {pack_address(address) for address in addresses}
    found = {
        any(notices(check, lost) for check in member.health_checks)
        for pool in config.pools
        for member in config.pool_members(pool)
        if pack_address(member.address) in packed
    }
    if len(found) > 1:
        return Effect(unsettled=frozenset({name}))
    return Effect(unhealthy=frozenset({name})) if True in found else Effect()
