"""Routers that speak BGP to routers: eBGP on every link between two of another AS, as data centres do it (RFC 7938).

An AS for each rack's leaf, one for the spines, one for the edges: so a path that has gone down never comes back up,
since BGP refuses what has its own AS in it. Every router announces the networks that it is connected to and what it has
learnt, and spreads over all paths of the same length.

What routers should agree on when nothing is missing is worked out here (`next_hops`), for whoever waits for it. Pure;
only the standard library, as all that nodes use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

# What a router's kernel hashes a flow by, as bits (ip-sysctl.rst, fib_multipath_hash_fields): ports always, for they
# tell flows apart. A field that is left out makes another hash of the same flow, so tiers choose independently.
SOURCE, DESTINATION, PROTOCOL, SOURCE_PORT, DESTINATION_PORT = 0x01, 0x02, 0x04, 0x10, 0x20
PORTS = SOURCE_PORT | DESTINATION_PORT
FIELDS_OF_TIERS = (  # from the internet inwards; GRE has no ports, so leaves and spines look at both addresses
    SOURCE | PORTS,
    SOURCE | PROTOCOL | PORTS,
    SOURCE | DESTINATION | PORTS,
    SOURCE | DESTINATION | PROTOCOL | PORTS,
)

HASHINGS = ("seeds", "fields", "alike")
SEED = "net.ipv4.fib_multipath_hash_seed"  # Linux 6.11; for IPv6 as well


@dataclass(frozen=True)
class Speaker:
    """A router as BGP sees it: its AS, and the routers that it has sessions with."""

    asn: int
    peers: frozenset[str]


def next_hops(speakers: Mapping[str, Speaker], origins: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    """Returns by which neighbours each router reaches a destination: all those that offer a shortest path.

    `origins` says which neighbours outside BGP's fabric, such as Maglevs, offer it to a router directly. A router that
    cannot reach it is left out.
    """
    best: dict[str, tuple[int, ...]] = {}
    for _ in range(len(speakers) + 1):  # a path is no longer than there are routers
        offers = {name: _offers(name, speakers, origins, best) for name in speakers}
        chosen = {name: min(each.values(), key=lambda path: (len(path), path)) for name, each in offers.items() if each}
        if chosen == best:
            break
        best = chosen
    return {
        name: frozenset(neighbour for neighbour, path in each.items() if len(path) == len(best[name]))
        for name, each in offers.items()
        if each
    }


def _offers(
    name: str, speakers: Mapping[str, Speaker], origins: Mapping[str, Collection[str]],
    best: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Returns the AS paths that a router is offered, by neighbour; one with its own AS in it is a loop, and refused."""
    own = speakers[name]
    offers: dict[str, tuple[int, ...]] = dict.fromkeys(origins.get(name, ()), ())
    for peer in own.peers & best.keys():
        path = (speakers[peer].asn, *best[peer])
        if own.asn not in path:
            offers[peer] = path
    return offers


def hash_sysctls(hashing: str, tier: int, number: int) -> dict[str, str]:
    """Returns what makes a router hash unlike those of other tiers, or alike.

    `seeds` gives each router a seed of its own, where the kernel has one a namespace; `fields` has each tier hash by
    other fields, which any kernel does; `alike` leaves all as they are: every tier then makes the same choice again.
    """
    if hashing == "seeds":
        return {SEED: str(1000 * (tier + 1) + number)}
    fields = str(FIELDS_OF_TIERS[tier if hashing == "fields" else -1])
    return {f"net.{family}.fib_multipath_hash_fields": fields for family in ("ipv4", "ipv6")}


def speakers(routers: Collection[Any], gone: Collection[str], apart: Collection[tuple[str, str]]) -> dict[str, Speaker]:
    """Returns the routers that are there, without those that are gone and the sessions between any that are apart."""
    there = {router.name: router for router in routers if router.name not in gone}
    return {
        name: Speaker(
            router.asn,
            frozenset(
                other.node.name
                for _, other in router.peers()
                if other.node.name in there and not {(name, other.node.name), (other.node.name, name)} & set(apart)
            ),
        )
        for name, router in there.items()
    }


def within(routes: Mapping[str, tuple[str, ...]], prefixes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns the routes to what lies in some prefixes: those to VIPs, among those that routers tell each other."""
    networks = [ip_network(prefix) for prefix in prefixes]
    return {to: hops for to, hops in routes.items() if _is_in(to, networks)}


def _is_in(destination: str, networks: Iterable[Any]) -> bool:
    network = ip_network(destination)
    return any(network.version == each.version and network.subnet_of(each) for each in networks)
