"""VIP matching, and the backends that stand behind each VIP now (Maglev §2.1, §4.2).

A `VipMap` is built aside from configuration and health, and swapped in by one assignment: a packet meets the old map
or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .flow import ICMP, PROTOCOL_NUMBERS, Address, pack_address

TableBuilder = Callable[[Sequence[str], int, Sequence[float]], npt.NDArray[np.int32]]


class PoolMember(Protocol):
    """What a backend pool lists: an endpoint and how large a share of new flows it takes."""

    @property
    def address(self) -> Address: ...
    @property
    def weight(self) -> float: ...


class ServedVip(Protocol):
    """What a VIP needs to say of itself; `config.Vip` does."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> Address: ...
    @property
    def protocol(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def pool(self) -> str: ...


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
    """A VIP and the backends behind it."""

    name: str
    backends: Backends


@dataclass(frozen=True, slots=True)
class VipMap:
    """All VIPs that a Maglev serves: address (16 bytes), then (protocol, port)."""

    services: Mapping[bytes, Mapping[tuple[int, int], Service]]
    pools: Mapping[str, Backends]

    def at(self, address: bytes) -> Mapping[tuple[int, int], Service] | None:
        """Returns what is served at an address, None if it is not a VIP of ours."""
        return self.services.get(address)


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


def build_map(vips: Sequence[ServedVip], backends_of: Callable[[str], Backends]) -> VipMap:
    """Returns the map of `vips`, each pool's backends built once by `backends_of(pool name)`.

    A ping to a VIP address has no port to match: it goes to the pool of that address's first VIP, in the order of
    protocol and port.
    """
    built = cache(backends_of)
    services: dict[bytes, dict[tuple[int, int], Service]] = {}
    for vip in sorted(vips, key=lambda vip: (PROTOCOL_NUMBERS[vip.protocol], vip.port)):
        service = Service(vip.name, built(vip.pool))
        ports = services.setdefault(pack_address(vip.address), {(ICMP, 0): service})
        ports[PROTOCOL_NUMBERS[vip.protocol], vip.port] = service
    return VipMap(services, {vip.pool: built(vip.pool) for vip in vips})
