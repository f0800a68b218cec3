"""VIP matching, and the backends that stand behind each VIP now (Maglev §2.1, §4.2).

A packet's destination is matched with the longest prefix that holds it, and then, among what is served there, with
protocol and port; a VIP of port 0 takes the ports that no other VIP of its prefix and protocol has.

A `VipMap` is built aside from configuration and health, and swapped in by one assignment: a packet meets the old map
or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from . import quic
from .flow import ICMP, ICMPV6, Address, is_v4, pack_address

TableBuilder = Callable[[Sequence[str], int, Sequence[float]], npt.NDArray[np.int32]]


class PoolMember(Protocol):
    """What a backend pool lists: an endpoint and how large a share of new flows it takes."""

    @property
    def address(self) -> Address: ...
    @property
    def weight(self) -> float: ...


class CidScheme(Protocol):
    """How connection IDs name endpoints; `config.QuicCid` says it."""

    @property
    def config_id(self) -> int: ...
    @property
    def server_id_bytes(self) -> int: ...


class ServedVip(Protocol):
    """What a VIP needs to say of itself; `config.Vip` does."""

    @property
    def name(self) -> str: ...
    @property
    def network(self) -> IPv4Network | IPv6Network: ...
    @property
    def protocol_number(self) -> int: ...
    @property
    def port(self) -> int: ...
    @property
    def backed_by(self) -> str: ...
    @property
    def affinity(self) -> str: ...
    @property
    def idle_timeout_s(self) -> float | None: ...
    @property
    def new_flows_per_s(self) -> float | None: ...
    @property
    def quic_cid(self) -> CidScheme | None: ...


ADDRESS_BITS = 128


class Prefix(NamedTuple):
    """The addresses that begin like one; 16 bytes, of which so many bits count."""

    address: bytes
    bits: int = ADDRESS_BITS


@dataclass(frozen=True, slots=True, eq=False)
class Backends:
    """A pool's healthy endpoints, made ready for lookup. Addresses are 16 bytes."""

    members: Sequence[bytes]  # the healthy, in the order of the configuration
    table: npt.NDArray[np.int32]  # the lookup table, (M,): who serves each slot, as a place in `members`; -1 nobody
    slots: Sequence[bytes | None]  # the same as addresses
    usable: frozenset[bytes]  # who may keep the flows it has: the healthy, weight 0 included
    digest: str  # equal on all Maglevs that choose alike

    def select(self, flow_hash: int) -> bytes | None:
        """Returns the backend for a flow's hash, None if the pool has no healthy backend."""
        return self.slots[flow_hash % len(self.slots)]


@dataclass(frozen=True, slots=True)
class Service:
    """A VIP, the backends behind it, and how its connections are remembered."""

    name: str
    backends: Backends
    by_client: bool = False  # whether all connections of a client go to one backend
    idle_timeout_s: float | None = None  # None: that of the connection table
    new_flows_per_s: float | None = None  # None: as many as come
    servers: quic.Servers | None = None  # whom QUIC's connection IDs name; None: packets go by their flow


Ports = Mapping[tuple[int, int], Service]  # (protocol, port); port 0: any, or a protocol without ports


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Maglevs among which fragments are shared out (Maglev §4.3): those of the VIP's shard.

    All Maglevs that serve a VIP agree on who owns its fragments, those of other shards too while it moves.
    """

    owners: Backends  # those of the own shard that are alive
    known: frozenset[bytes]  # all addresses of all Maglevs, of both families: whose redirected packets are taken
    elsewhere: Mapping[Prefix, Backends] = field(default_factory=dict)  # VIPs of other shards: their owners
    allies: Mapping[str, Backends] = field(default_factory=dict)  # other shards with a VIP in common: who lives there

    def lives(self, maglev: bytes) -> bool:
        """Says whether a Maglev (16 bytes) that may own fragments is alive."""
        return maglev in self.owners.usable or any(maglev in ally.usable for ally in self.allies.values())


@dataclass(frozen=True, slots=True)
class VipMap:
    """All VIPs that a Maglev serves."""

    services: Mapping[Prefix, Ports]
    pools: Mapping[str, Backends]
    lengths: Sequence[int] = (ADDRESS_BITS,)  # in bits, of all prefixes in `services`, the longest first
    cluster: Cluster | None = None  # None: this Maglev is alone

    def at(self, address: bytes) -> Ports | None:
        """Returns what is served at an address (16 bytes), None if it belongs to no VIP of ours."""
        prefix = self.prefix_at(address)
        return None if prefix is None else self.services[prefix]

    def prefix_at(self, address: bytes) -> Prefix | None:
        """Returns the longest prefix of a VIP of ours that holds an address (16 bytes), None if there is none."""
        for bits in self.lengths:
            prefix = Prefix(masked(address, bits), bits)
            if prefix in self.services:
                return prefix
        return None

    def owners_at(self, address: bytes) -> Backends | None:
        """Returns the Maglevs that share out fragments to an address of ours, None if this Maglev is alone."""
        if self.cluster is None or not self.cluster.elsewhere:
            return self.cluster.owners if self.cluster else None
        prefix = self.prefix_at(address)
        return self.cluster.owners if prefix is None else self.cluster.elsewhere.get(prefix, self.cluster.owners)


def masked(address: bytes, bits: int) -> bytes:
    """Returns an address (16 bytes) with all bits after the first so many set to 0."""
    if bits == ADDRESS_BITS:
        return address
    unused = ADDRESS_BITS - bits
    return (int.from_bytes(address, "big") >> unused << unused).to_bytes(16, "big")


def service_at(ports: Ports, protocol: int, port: int) -> Service | None:
    """Returns the VIP of a protocol and port, or else the one of any port, None if there is neither."""
    return ports.get((protocol, port)) or ports.get((protocol, 0))


EMPTY = VipMap({}, {})


def build_backends(members: Sequence[PoolMember], table_size: int, build_table: TableBuilder) -> Backends:
    """Returns the backends of a pool from its healthy members.

    A backend's name in Maglev hashing is its address as text, so that Maglevs agree whatever order a file lists them
    in. `build_table` is `hashing.lookup_table` or one of `baselines`.
    """
    names = [str(member.address) for member in members]
    packed = [pack_address(member.address) for member in members]
    table = build_table(names, table_size, [member.weight for member in members])
    slots = np.array([*packed, None], object)[table].tolist()  # place -1 is the last, which is nobody
    addresses = np.frombuffer(b"".join(packed) + bytes(16), np.uint8).reshape(-1, 16)
    digest = hashlib.blake2b(addresses[table].tobytes(), digest_size=8).hexdigest()
    return Backends(tuple(packed), table, slots, frozenset(packed), digest)


def build_map(
    vips: Collection[ServedVip], backends_of: Callable[[str], Backends], cluster: Cluster | None = None
) -> VipMap:
    """Returns the map of `vips`, what stands behind them built once each by `backends_of(backed by)`.

    VIPs of one name are one VIP at several addresses: one service, with one limit on new flows.

    A ping to a VIP address has no port to match: it goes to the pool of that address's first VIP, in the order of
    protocol and port, unless there is a VIP for ICMP itself.
    """
    built = cache(backends_of)

    @cache
    def servers(backed_by: str, scheme: quic.Scheme) -> quic.Servers:
        return quic.servers(scheme, built(backed_by).usable)

    known: dict[str, Service] = {}
    services: dict[Prefix, dict[tuple[int, int], Service]] = {}
    for vip in sorted(vips, key=lambda vip: (vip.protocol_number, vip.port)):
        by_client = vip.affinity == "client"
        cid = vip.quic_cid
        named = None if cid is None else servers(vip.backed_by, quic.Scheme(cid.config_id, cid.server_id_bytes))
        fresh = Service(vip.name, built(vip.backed_by), by_client, vip.idle_timeout_s, vip.new_flows_per_s, named)
        service = known.setdefault(vip.name, fresh)
        prefix = prefix_of(vip.network)
        ports = services.setdefault(prefix, {(ICMP if is_v4(prefix.address) else ICMPV6, 0): service})
        ports[vip.protocol_number, vip.port] = service
    lengths = sorted({prefix.bits for prefix in services}, reverse=True)
    return VipMap(services, {vip.backed_by: built(vip.backed_by) for vip in vips}, tuple(lengths), cluster)


def prefix_of(network: IPv4Network | IPv6Network) -> Prefix:
    """Returns a network as a prefix of 16-byte addresses."""
    bits = ADDRESS_BITS - network.max_prefixlen + network.prefixlen
    return Prefix(pack_address(network.network_address), bits)
