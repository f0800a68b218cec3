"""Has the lab caught up with what was done to it? What is still missing, in words.

Expectations come from the lab's own deeds: each open fault says what should follow from it (`faults.effect`). What is,
is asked of the routers' kernels and of the forwarders.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from maglev.engine.control import ControlError, request

from . import observe
from .errors import LabError
from .faults.effect import Effect


@dataclass(frozen=True)
class Expected:
    """What the lab should look like by now."""

    vips: Mapping[str, Collection[str]]  # address or prefix: names of the Maglevs that announce it
    effect: Effect = field(default_factory=Effect)  # of all faults that are open


def missing(nodes: Sequence[Any], expected: Expected) -> str:
    """Returns what is not yet as it should be, "" if all is; LabError for a daemon that ended though nobody killed it.

    All is well when every router's kernel spreads every VIP over exactly the Maglevs in service that announce it, and
    each of these is ready, finds exactly the living endpoints healthy, and has built the same lookup tables as the
    others. Nothing is asked of a node that comes and goes.
    """
    effect = expected.effect
    settled = [node for node in nodes if node.name not in effect.unsettled]
    _check_daemons(settled)
    by_role = {role: [node for node in settled if node.role == role] for role in ("router", "maglev", "endpoint")}
    announcing = [node for node in by_role["maglev"] if node.name not in effect.withdrawn]
    moving = _addresses(node for node in nodes if node.name in effect.unsettled)
    routes = _wrong_routes(by_role["router"], announcing, expected, moving)
    serving = [node for node in announcing if _routers_of(node, effect)]
    living = _addresses(node for node in by_role["endpoint"] if node.name not in effect.unhealthy)
    drained = _addresses(node for node in by_role["endpoint"] if node.name in effect.drained)
    return routes or _wrong_views(serving, living, drained, moving)


def _routers_of(maglev: Any, effect: Effect) -> set[str]:
    """Returns the routers that may send to a Maglev."""
    there = {end.node.name for _, end in maglev.neighbours("router")}
    return {router for router in there if (router, maglev.name) not in effect.apart}


def _addresses(nodes: Iterable[Any]) -> set[str]:
    return {address for node in nodes for address in node.addresses.values()}


def _check_daemons(nodes: Sequence[Any]) -> None:
    for node in nodes:
        for name, daemon in list(node.daemons.items()):
            if daemon.poll() is not None:
                last = (node.directory / f"{name}.log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise LabError(f"{node.name}'s {name} has ended by itself: {last or 'it said nothing'}")


def _wrong_routes(routers: Sequence[Any], announcing: Sequence[Any], expected: Expected, moving: set[str]) -> str:
    for router in routers:
        own = [node for node in announcing if (router.name, node.name) not in expected.effect.apart]
        hops = {
            vip: _hops((node for node in own if node.name in by), ip_network(vip).version)
            for vip, by in expected.vips.items()
        }
        wanted = {vip: found for vip, found in hops.items() if found}
        actual = _without(observe.ecmp(router), moving)
        if actual != wanted:
            return f"{router.name} has VIP routes {actual}, expected {wanted}"
    return ""


def _without(routes: Mapping[str, tuple[str, ...]], moving: set[str]) -> dict[str, tuple[str, ...]]:
    """Returns routes without next hops that may or may not be there."""
    left = {vip: tuple(hop for hop in hops if hop not in moving) for vip, hops in routes.items()}
    return {vip: hops for vip, hops in left.items() if hops}


def _hops(announcing: Iterable[Any], version: int) -> tuple[str, ...]:
    return tuple(sorted(node.addresses[version] for node in announcing if version in node.addresses))


def _wrong_views(serving: Sequence[Any], living: set[str], drained: set[str], moving: set[str]) -> str:
    digests: dict[str, set[str]] = {}  # pool: lookup tables
    for node in serving:
        view = observe.maglev_view(node.control)
        if view is None or not view.status["ready"]:
            return f"{node.name}'s forwarder is not ready"
        for pool, state in view.status["pools"].items():
            members = {*state["healthy"], *state["unhealthy"]} - moving
            if (
                set(state["healthy"]) - moving != living & members
                or set(state["drained"]) - moving != drained & members
            ):
                seen = f"healthy {state['healthy']}, drained {state['drained']}"
                return f"{node.name} finds in {pool} {seen}, expected {sorted(living)}, {sorted(drained)}"
            if moving.isdisjoint({*state["healthy"], *state["unhealthy"]}):
                digests.setdefault(pool, set()).add(state["table_digest"])
    differing = sorted(pool for pool, tables in digests.items() if len(tables) > 1)
    return f"Maglevs have different lookup tables for {', '.join(differing)}" if differing else ""


def held_down_s(maglevs: Iterable[Any]) -> float:
    """Returns for how many seconds flap damping still holds down some endpoint, as Maglevs say that answer."""
    held = 0.0
    for node in maglevs:
        with contextlib.suppress(ControlError):
            checks = request(node.control, "GET", "/health")["checks"]
            held = max([held, *(check["held_down_for_s"] for check in checks)])
    return held
