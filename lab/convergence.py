"""Has the lab caught up with what was done to it? What is still missing, in words.

Expectations come from the lab's own deeds (who is down, who is drained); what is, is asked of the routers' kernels
and of the forwarders.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from . import observe
from .errors import LabError


@dataclass(frozen=True)
class Expected:
    """What the lab should look like by now."""

    vips: Mapping[str, Collection[str]]  # address or prefix: names of the Maglevs that announce it
    down: Collection[str]  # names of nodes that were killed or powered off
    drained: Collection[str]  # names of nodes that were drained


def missing(nodes: Sequence[Any], expected: Expected) -> str:
    """Returns what is not yet as it should be, "" if all is; LabError for a daemon that ended though nobody killed it.

    All is well when every router's kernel spreads every VIP over exactly the Maglevs in service that announce it, and
    each of these is ready, finds exactly the living endpoints healthy, and has built the same lookup tables as the
    others.
    """
    _check_daemons(nodes)
    out_of_service = {*expected.down, *expected.drained}
    serving = [node for node in nodes if node.role == "maglev" and node.name not in out_of_service]
    routers = [node for node in nodes if node.role == "router"]
    endpoints = [node for node in nodes if node.role == "endpoint"]
    living = _addresses(node for node in endpoints if node.name not in expected.down)
    drained = _addresses(node for node in endpoints if node.name in expected.drained)
    return _wrong_routes(routers, serving, expected.vips) or _wrong_views(serving, living, drained)


def _addresses(nodes: Iterable[Any]) -> set[str]:
    return {address for node in nodes for address in node.addresses.values()}


def _check_daemons(nodes: Sequence[Any]) -> None:
    for node in nodes:
        for name, daemon in node.daemons.items():
            if daemon.poll() is not None:
                last = (node.directory / f"{name}.log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise LabError(f"{node.name}'s {name} has ended by itself: {last or 'it said nothing'}")


def _wrong_routes(routers: Sequence[Any], serving: Sequence[Any], vips: Mapping[str, Collection[str]]) -> str:
    hops = {vip: _hops(serving, announcing, ip_network(vip).version) for vip, announcing in vips.items()}
    expected = {vip: found for vip, found in hops.items() if found}
    for router in routers:
        actual = observe.ecmp(router)
        if actual != expected:
            return f"{router.name} has VIP routes {actual}, expected {expected}"
    return ""


def _hops(serving: Sequence[Any], announcing: Collection[str], version: int) -> tuple[str, ...]:
    nodes = (node for node in serving if node.name in announcing)
    return tuple(sorted(node.addresses[version] for node in nodes if version in node.addresses))


def _wrong_views(serving: Sequence[Any], living: set[str], drained: set[str]) -> str:
    digests: dict[str, set[str]] = {}  # pool: lookup tables
    for node in serving:
        view = observe.maglev_view(node.control)
        if view is None or not view.status["ready"]:
            return f"{node.name}'s forwarder is not ready"
        for pool, state in view.status["pools"].items():
            members = {*state["healthy"], *state["unhealthy"]}
            if set(state["healthy"]) != living & members or set(state["drained"]) != drained & members:
                seen = f"healthy {state['healthy']}, drained {state['drained']}"
                return f"{node.name} finds in {pool} {seen}, expected {sorted(living)}, {sorted(drained)}"
            digests.setdefault(pool, set()).add(state["table_digest"])
    differing = sorted(pool for pool, tables in digests.items() if len(tables) > 1)
    return f"Maglevs have different lookup tables for {', '.join(differing)}" if differing else ""
