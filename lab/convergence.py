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

from . import fabric, observe
from .errors import LabError
from .faults.effect import Effect


@dataclass(frozen=True)
class Expected:
    """What the lab should look like by now."""

    vips: Mapping[str, Collection[str]]  # address or prefix: names of the Maglevs that announce it
    effect: Effect = field(default_factory=Effect)  # of all faults that are open
    backing: Mapping[str, Sequence[Collection[str]]] = field(default_factory=dict)  # VIP: its endpoints, pool by pool


def missing(nodes: Sequence[Any], expected: Expected) -> str:
    """Returns what is not yet as it should be, "" if all is; LabError for a daemon that ended though nobody killed it.

    All is well when every router's kernel spreads every VIP over exactly the Maglevs in service that announce it, or
    the routers on the way to them (`fabric`); BFD watches every session between routers, so that one that is lost from
    then on is soon missed; each of these Maglevs is ready, finds exactly those living endpoints healthy that its
    packets can come to, and has built the same lookup tables as others that find the same; and name servers hand
    out exactly the VIPs that they can reach. Nothing is asked of a node that comes and goes. A Maglev that no endpoint
    answers may announce or not: it does as long as another Maglev answers.
    """
    effect = expected.effect
    settled = [node for node in nodes if node.name not in effect.unsettled]
    _check_daemons(settled)
    maglevs, endpoints = (_of_role(settled, role) for role in ("maglev", "endpoint"))
    announcing = [node for node in maglevs if node.name not in effect.withdrawn]
    serving = [node for node in announcing if _routers_of(node, effect)]
    living = [node for node in endpoints if node.name not in effect.unhealthy]
    reachable = _reachable(nodes, serving, living, effect)
    doubtful = [node for node in serving if not reachable[node.name]]
    moving = _addresses(node for node in nodes if node.name in effect.unsettled)
    certain = [node for node in announcing if node not in doubtful]
    routers = _of_role(nodes, "router")
    restless = bool(doubtful) or any(router.name in effect.unsettled for router in routers)
    wrong = _wrong_routes(routers, certain, expected, moving | _addresses(doubtful), restless)
    wrong = wrong or _unwatched(_of_role(settled, "router"), effect)
    drained = _addresses(node for node in endpoints if node.name in effect.drained)
    wrong = wrong or _wrong_views(serving, reachable, drained, moving)
    return wrong or _wrong_names(_of_role(settled, "nameserver"), expected, _addresses(living))


def _of_role(nodes: Iterable[Any], role: str) -> list[Any]:
    return [node for node in nodes if node.role == role]


def _routers_of(node: Any, effect: Effect) -> set[str]:
    """Returns the routers that may send to a Maglev or an endpoint."""
    there = {end.node.name for _, end in node.neighbours("router")} - effect.gone
    return {router for router in there if (router, node.name) not in effect.apart}


def _reachable(
    nodes: Sequence[Any], serving: Sequence[Any], living: Sequence[Any], effect: Effect
) -> dict[str, set[str]]:
    """Returns the addresses of the living endpoints that each Maglev's packets can come to, by its name."""
    speakers = fabric.speakers(_of_role(nodes, "router"), effect.gone, effect.apart)
    reach: dict[str, set[str]] = {maglev.name: set() for maglev in serving}
    near = {node.name: _routers_of(node, effect) for node in serving}
    for endpoint in living:
        owners = _routers_of(endpoint, effect)
        able = set(fabric.next_hops(speakers, dict.fromkeys(owners, (endpoint.name,))))
        beside = {other.node.name for _, other in endpoint.neighbours("maglev")}  # on one switch
        for maglev in serving:
            if maglev.name in beside or near[maglev.name] & able:
                reach[maglev.name] |= _addresses([endpoint])
    return reach


def _addresses(nodes: Iterable[Any]) -> set[str]:
    return {address for node in nodes for address in node.addresses.values()}


def _check_daemons(nodes: Sequence[Any]) -> None:
    for node in nodes:
        for name, daemon in list(node.daemons.items()):
            if daemon.poll() is not None:
                last = node.last_words(name) or "it said nothing"
                raise LabError(f"{node.name}'s {name} has ended by itself: {last}")


def _wrong_routes(
    routers: Sequence[Any], announcing: Sequence[Any], expected: Expected, moving: set[str], restless: bool
) -> str:
    """Returns which router spreads a VIP over others than it should: over all next hops on a shortest path.

    Whether a router comes or goes, or a Maglev may announce or not, changes what others should do: when `restless`,
    nothing is expected of routers that speak to each other.
    """
    effect = expected.effect
    asked = [
        router
        for router in routers
        if router.name not in effect.gone | effect.unsettled and not (restless and router.peers())
    ]
    speakers = fabric.speakers(routers, effect.gone, effect.apart)
    wanted: dict[str, dict[str, tuple[str, ...]]] = {router.name: {} for router in asked}
    for vip, by in expected.vips.items():
        origins = {
            name: [node.name for node in announcing if node.name in by and name in _routers_of(node, effect)]
            for name in speakers
        }
        names = fabric.next_hops(speakers, origins)
        for router in asked:
            if found := _hops(router, names.get(router.name, frozenset()), ip_network(vip).version):
                wanted[router.name][vip] = found
    for router in asked:
        actual = _without(observe.ecmp(router), moving)
        if actual != wanted[router.name]:
            return f"{router.name} has VIP routes {actual}, expected {wanted[router.name]}"
    return ""


def _unwatched(routers: Sequence[Any], effect: Effect) -> str:
    """Returns which router's BFD does not yet watch whom it should."""
    speakers = fabric.speakers(routers, effect.gone, effect.apart)
    for router in routers:
        theirs = speakers[router.name].peers if router.name in speakers else frozenset()
        wanted = {
            address: other.node.name
            for _, other in router.peers()
            if other.node.name in theirs
            for address in router.addresses_of(other).values()
        }
        watched = observe.watched(router) if wanted else frozenset()
        for address in sorted(wanted.keys() - watched):
            return f"{router.name}'s BFD does not hear {wanted[address]} at {address}"
    return ""


def _without(routes: Mapping[str, tuple[str, ...]], moving: set[str]) -> dict[str, tuple[str, ...]]:
    """Returns routes without next hops that may or may not be there."""
    left = {vip: tuple(hop for hop in hops if hop not in moving) for vip, hops in routes.items()}
    return {vip: hops for vip, hops in left.items() if hops}


def _hops(router: Any, names: Collection[str], version: int) -> tuple[str, ...]:
    """Returns the addresses, on the router's links, of those among its neighbours that have one of the version."""
    ends = [other for _, other in (*router.neighbours("maglev"), *router.peers()) if other.node.name in names]
    return tuple(sorted(own[version] for end in ends if version in (own := router.addresses_of(end))))


def _wrong_views(serving: Sequence[Any], reachable: Mapping[str, set[str]], drained: set[str], moving: set[str]) -> str:
    digests: dict[tuple[str, frozenset[str]], set[str]] = {}  # pool, and the endpoints that are reached: lookup tables
    for node in serving:
        living = reachable[node.name]
        view = observe.maglev_view(node.control)
        if view is None or (living and not view.status["ready"]):
            error = node.last_error("forwarder")
            return f"{node.name}'s forwarder is not ready" + (f": {error}" if error else "")
        for pool, state in view.status["pools"].items():
            members = {*state["healthy"], *state["unhealthy"]} - moving
            if (
                set(state["healthy"]) - moving != living & members
                or set(state["drained"]) - moving != drained & members
            ):
                seen = f"healthy {state['healthy']}, drained {state['drained']}"
                return f"{node.name} finds in {pool} {seen}, expected {sorted(living)}, {sorted(drained)}"
            if moving.isdisjoint({*state["healthy"], *state["unhealthy"]}):
                digests.setdefault((pool, frozenset(living)), set()).add(state["table_digest"])
    differing = sorted(pool for (pool, _), tables in digests.items() if len(tables) > 1)
    return f"Maglevs have different lookup tables for {', '.join(differing)}" if differing else ""


def _wrong_names(nameservers: Sequence[Any], expected: Expected, living: set[str]) -> str:
    """Returns which name server hands out a VIP that it cannot reach, or holds back one that serves.

    Nothing is asked of VIPs behind which some pools live and some do not, nor while nodes come and go.
    """
    there = [node for node in nameservers if node.name not in expected.effect.gone]
    for node in [] if expected.effect.unsettled else there:
        known = _handed_out(node)
        if known is None:
            return f"{node.name}'s name server is not ready"
        routes = {vip for _, other in node.neighbours("router") for vip in observe.ecmp(other.node)}
        for vip, serves in known.items():
            alive = [bool(living & set(pool)) for pool in expected.backing.get(vip, ())] if vip in routes else [False]
            if alive and alive == [not serves] * len(alive):
                return f"{node.name} {'hands out' if serves else 'does not hand out'} {vip}"
    return ""


def _handed_out(nameserver: Any) -> dict[str, bool] | None:
    """Returns whether each VIP would be handed out, None if it is too early to say."""
    with contextlib.suppress(ControlError):
        status = request(nameserver.control, "GET", "/status")
        if status["ready"]:
            return {vip: serves for each in status["vips"].values() for vip, serves in each.items()}
    return None


def held_down_s(maglevs: Iterable[Any]) -> float:
    """Returns for how many seconds flap damping still holds down some endpoint, as Maglevs say that answer."""
    held = 0.0
    for node in maglevs:
        with contextlib.suppress(ControlError):
            checks = request(node.control, "GET", "/health")["checks"]
            held = max([held, *(check["held_down_for_s"] for check in checks)])
    return held
