"""What a router knows, as flows and groups for its switch: pure.

Every port leads to a link, and has an *inside* port beside it: the kernel's interface with the router's addresses on
that link. The kernel is the slow path: it gets what no flow takes, so it answers ARP, neighbour discovery and pings,
holds BGP's connections, resolves link addresses, sends ICMP errors, cuts what is too big. Flows take the rest past it.

    table 0  ports    from inside: out. IP to the router's link address: on to routes. The rest: to the kernel
    table 1  routes   by destination: neighbour, or a group for a VIP. Hop limit used up: to the kernel
    table 2  sizes    where a link takes less than others: what is too big goes to the kernel
    table 3  kernel   inside

A VIP's group is a select group with a bucket a Maglev. The switch hashes the 5-tuple, and takes of the living buckets
the one whose id makes the most of that hash (rendezvous), so flows stay where they are when other buckets go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import NamedTuple

PORTS, ROUTES, SIZES, KERNEL = range(4)  # tables
IPV4, IPV6 = 0x0800, 0x86DD  # Ethernet types
ETHERTYPE = {4: IPV4, 6: IPV6}
DESTINATION = {4: "ipv4_dst", 6: "ipv6_dst"}  # OpenFlow's names of fields
ETHERNET_BYTES = 14  # a frame is so much larger than what its link's MTU counts
LEAST, USUAL, MORE = 0, 10, 20  # priorities


class SetField(NamedTuple):
    """Writes a field of the packet."""

    field: str
    value: str


class DecrementTtl(NamedTuple):
    """Counts one hop."""


class CheckLarger(NamedTuple):
    """Puts into bit 0 of register 0 whether the frame is larger than so many bytes."""

    frame_bytes: int


class Output(NamedTuple):
    """Sends the packet out by a port."""

    port: int


class ToGroup(NamedTuple):
    """Has a group take the packet."""

    group: int


Action = SetField | DecrementTtl | CheckLarger | Output | ToGroup
Match = tuple[tuple[str, int | str], ...]  # field, value


@dataclass(frozen=True)
class Flow:
    """What a table of the switch does with packets that match, if nothing of higher priority does."""

    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...] = ()
    goto: int | None = None

    @property
    def cookie(self) -> int:
        """Returns a number that says all of the flow: the switch keeps it, so it tells us what it has."""
        return int.from_bytes(hashlib.blake2b(repr(self).encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Bucket:
    """A next hop of a group: out by a port, between two link addresses. `number` is the hop's as long as it lives."""

    number: int
    port: int
    source: str
    destination: str

    @property
    def actions(self) -> tuple[Action, ...]:
        """Returns what is done to a packet."""
        return _to(self.source, self.destination, self.port)


@dataclass(frozen=True)
class Group:
    """A select group; its buckets in the order of their numbers."""

    number: int
    buckets: tuple[Bucket, ...]


@dataclass(frozen=True)
class Port:
    """A link of the router, and the kernel's interface beside it; `mac` is the router's own address there."""

    number: int
    inside: int
    mac: str
    mtu_bytes: int


@dataclass(frozen=True)
class Neighbour:
    """Who is at the other end of a port's link."""

    address: str
    port: int
    mac: str


Neighbours = Mapping[str, Neighbour]  # address: who has it
Routes = Mapping[str, frozenset[str]]  # VIP, an address or a prefix: its next hops' addresses


@dataclass(frozen=True)
class Rules:
    """What a switch has, or shall have."""

    flows: frozenset[Flow]
    groups: Mapping[int, Group]
    numbers: Mapping[str, int] = field(default_factory=dict)  # VIP: its group


def rules(ports: Mapping[int, Port], neighbours: Neighbours, routes: Routes, numbers: Mapping[str, int]) -> Rules:
    """Returns all flows and groups; `numbers` has the groups of VIPs that have one already, which they keep.

    Hops whose link address is not known yet are left out, and VIPs that none is left to.
    """
    hops = {vip: [neighbours[hop] for hop in sorted(all_) if hop in neighbours] for vip, all_ in routes.items()}
    numbered = number_groups([vip for vip, known in hops.items() if known], numbers)
    groups = {number: group(number, ports, hops[vip]) for vip, number in numbered.items()}
    flows = {*base(ports), *to_neighbours(ports, neighbours.values())}
    flows |= {_to_group(vip, number) for vip, number in numbered.items()}
    return Rules(frozenset(flows), groups, numbered)


def number_groups(vips: Iterable[str], numbers: Mapping[str, int]) -> dict[str, int]:
    """Returns a number for each VIP's group: its old one, or the first that is free."""
    kept = {vip: numbers[vip] for vip in sorted(vips) if vip in numbers}
    for vip in sorted(vips):
        taken = {*kept.values(), *numbers.values()}
        kept.setdefault(vip, next(number for number in range(1, len(taken) + 2) if number not in taken))
    return kept


def group(number: int, ports: Mapping[int, Port], hops: Iterable[Neighbour]) -> Group:
    """Returns a VIP's group. A bucket has its port's number: a link has one Maglev at its other end."""
    buckets = (Bucket(hop.port, hop.port, ports[hop.port].mac, hop.mac) for hop in hops)
    return Group(number, tuple(sorted(buckets, key=lambda bucket: bucket.number)))


def base(ports: Mapping[int, Port]) -> Iterator[Flow]:
    """Yields what holds whoever the neighbours are."""
    for port in ports.values():
        yield Flow(PORTS, MORE, (("in_port", port.inside),), (Output(port.number),))
        for ethertype in (IPV4, IPV6):
            mine = (("in_port", port.number), ("eth_dst", port.mac), ("eth_type", ethertype))
            yield Flow(PORTS, USUAL, mine, goto=ROUTES)
        yield Flow(KERNEL, LEAST, (("in_port", port.number),), (Output(port.inside),))
    for ethertype in (IPV4, IPV6):
        for left in (0, 1):
            yield Flow(ROUTES, MORE, (("eth_type", ethertype), ("nw_ttl", left)), goto=KERNEL)
    yield Flow(SIZES, MORE, (("reg0", 1),), goto=KERNEL)
    yield from (Flow(table, LEAST, (), goto=KERNEL) for table in (PORTS, ROUTES, SIZES))


def to_neighbours(ports: Mapping[int, Port], neighbours: Iterable[Neighbour]) -> Iterator[Flow]:
    """Yields what leads to the neighbours themselves."""
    largest = max((port.mtu_bytes for port in ports.values()), default=0)
    for each in neighbours:
        port, match = ports[each.port], destined_to(each.address)
        actions = _to(port.mac, each.mac, port.number)
        if port.mtu_bytes < largest:
            check = (CheckLarger(port.mtu_bytes + ETHERNET_BYTES),)
            yield Flow(ROUTES, USUAL, match, check, SIZES)
            yield Flow(SIZES, USUAL, match, actions)
        else:
            yield Flow(ROUTES, USUAL, match, actions)


def _to_group(vip: str, number: int) -> Flow:
    return Flow(ROUTES, USUAL, destined_to(vip), (ToGroup(number),))


def destined_to(prefix: str) -> Match:
    """Returns the match of packets to an address or a prefix; one of one address is named by it alone."""
    network = ip_network(prefix)
    is_host = network.prefixlen == network.max_prefixlen
    value = str(network.network_address) if is_host else network.with_netmask
    return ("eth_type", ETHERTYPE[network.version]), (DESTINATION[network.version], value)


def _to(source: str, destination: str, port: int) -> tuple[Action, ...]:
    return SetField("eth_src", source), SetField("eth_dst", destination), DecrementTtl(), Output(port)


@dataclass(frozen=True)
class Changes:
    """What makes a switch that has one set of rules have another, in the order in which it must be done."""

    new_groups: tuple[Group, ...] = ()
    changed_groups: tuple[Group, ...] = ()  # replaced whole, with all their buckets
    new_flows: tuple[Flow, ...] = ()
    old_flows: tuple[int, ...] = ()  # cookies
    old_groups: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self != Changes()


def changes(cookies: frozenset[int], groups: Mapping[int, Group], wanted: Rules) -> Changes:
    """Returns what must be done to a switch that has flows with these cookies, and these groups."""
    flows = {flow.cookie: flow for flow in wanted.flows}
    numbers = sorted(wanted.groups)
    new = [flow for cookie, flow in sorted(flows.items()) if cookie not in cookies]
    return Changes(
        tuple(wanted.groups[number] for number in numbers if number not in groups),
        tuple(wanted.groups[each] for each in numbers if each in groups and wanted.groups[each] != groups[each]),
        tuple(sorted(new, key=lambda flow: -flow.table)),  # later tables first: no packet meets half a way
        tuple(sorted(cookies - flows.keys())),
        tuple(sorted(groups.keys() - wanted.groups.keys())),
    )


def without_dead_ports(neighbours: Neighbours, alive: Iterable[int]) -> dict[str, Neighbour]:
    """Returns the neighbours whose links work."""
    living = set(alive)
    return {address: each for address, each in neighbours.items() if each.port in living}
