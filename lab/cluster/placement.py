"""Which node of a topology goes to which server: racks stay together. Pure.

A rack is what Maglevs and endpoints have links to, with them: a leaf and its machines, or a switch and all that hang on
it. Links within it carry packets in GRE, health checks and BGP; those between racks are fewer, and are what becomes a
tunnel. Mininet's own placer puts hosts beside their switch, and refuses a topology without switches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..wiring import Wiring, natural

HERE = "localhost"  # as Mininet calls the machine that builds the network
MACHINES = ("maglev", "endpoint", "nameserver", "switch")  # whose links hold a rack together


def racks(wiring: Wiring) -> list[tuple[str, ...]]:
    """Returns who stands in each rack: every one has a Maglev or an endpoint; in the order of their routers."""
    role, rack_of = wiring.role_of, {name: {name} for name in wiring.names()}
    for link in wiring.links:
        near, far = link.nodes
        kinds = {role[near], role[far]}
        if "client" not in kinds and kinds & set(MACHINES) and rack_of[near] is not rack_of[far]:
            rack_of[near] |= rack_of[far]
            rack_of.update(dict.fromkeys(rack_of[far], rack_of[near]))
    distinct = {min(rack, key=natural): rack for rack in rack_of.values()}
    sorted_racks = [tuple(sorted(rack, key=natural)) for _, rack in sorted(distinct.items(), key=_by_name)]
    return [rack for rack in sorted_racks if {"maglev", "endpoint"} & {role[name] for name in rack}]


def _by_name(item: tuple[str, Iterable[str]]) -> tuple[object, ...]:
    return natural(item[0])


def place(wiring: Wiring, servers: Sequence[str]) -> dict[str, str]:
    """Returns each node's server: racks in turn, what stands in no rack on the first server, clients here.

    Clients are always here because their traffic is timed by this machine's clock.
    """
    placed = dict.fromkeys(wiring.names(), servers[0])
    for number, rack in enumerate(racks(wiring)):
        placed.update(dict.fromkeys(rack, servers[number % len(servers)]))
    return placed | dict.fromkeys(wiring.names("client"), HERE)


def tunnels(wiring: Wiring, placed: Mapping[str, str]) -> list[str]:
    """Returns the links between servers, by name."""
    return [link.name for link in wiring.links if placed[link.nodes[0]] != placed[link.nodes[1]]]
