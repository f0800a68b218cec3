"""What a forwarder answers when it is asked, as documents for JSON. Pure: what others keep and count, in.

Addresses are texts here, and 16 bytes everywhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .config_objects import Config
from .flow import unpack_address
from .forwarding import Statistics
from .vips import Backends, Cluster, VipMap

ACTIVE_WITHIN_S = 1.0  # a flow that was used in the last second counts as active


class Occupied(Protocol):
    """What can be asked of a connection table here."""

    capacity: int

    def __len__(self) -> int: ...
    @property
    def overflows(self) -> int: ...
    @property
    def over_share(self) -> int: ...
    def by_backend(self, now: float, within_s: float) -> Mapping[bytes, int]: ...


def living_maglevs(cluster: Cluster | None) -> dict[str, Any]:
    """Returns who lives of the own shard, and of each other shard that serves a VIP together with it."""
    if cluster is None:
        return {"peers": [], "allies": {}}
    allies = {shard: _members(maglevs) for shard, maglevs in cluster.allies.items()}
    return {"peers": _members(cluster.owners), "allies": allies}


def pools(config: Config, shard: str, vips: VipMap) -> dict[str, Any]:
    """Returns, for each pool that a shard's VIPs name, who of it takes packets now, and its table's digest."""
    names = dict.fromkeys(pool for vip in config.vips_of(shard) for pool in vip.pools)
    return {name: _pool(config, name, vips) for name in names}


def _pool(config: Config, name: str, vips: VipMap) -> dict[str, Any]:
    members = config.pool_members(name)
    backends = vips.pools.get(name)
    mapped = vips.pools.values() if backends is None else [backends]
    usable = {unpack_address(address) for each in mapped for address in each.usable}
    return {
        "healthy": [str(member.address) for member in members if member.address in usable],
        "unhealthy": [str(member.address) for member in members if member.address not in usable],
        "drained": [str(member.address) for member in members if member.weight == 0],
        "table_digest": backends.digest if backends else None,
    }


def lookup_tables(vips: VipMap) -> dict[str, Any]:
    """Returns every pool's lookup table: the backend of each slot, null where there is none."""
    return {
        pool: {"slots": [_text(backend) if backend else None for backend in backends.slots]}
        for pool, backends in vips.pools.items()
    }


def statistics(counted: Statistics, tables: Sequence[Occupied], now: float) -> dict[str, Any]:
    """Returns what was counted, in packets, and what connection tables hold at `now` (monotonic s), in flows."""
    return {
        "forwarded": counted.forwarded.total(),
        "drops": counted.drops(),
        "redirected": [
            {"maglev": _text(maglev), "packets": packets} for maglev, packets in sorted(counted.redirected.items())
        ],
        "vips": [
            {"vip": vip, "endpoint": _text(endpoint), "packets": packets}
            for (vip, endpoint), packets in sorted(counted.forwarded.items())
        ],
        "connections": _occupancy(tables, now),
    }


def _occupancy(tables: Sequence[Occupied], now: float) -> dict[str, Any]:
    active: Counter[bytes] = Counter()
    for table in tables:
        active.update(table.by_backend(now, ACTIVE_WITHIN_S))
    return {
        "entries": sum(map(len, tables)),
        "capacity": sum(table.capacity for table in tables),
        "overflows": sum(table.overflows for table in tables),
        "over_share": sum(table.over_share for table in tables),
        "active": sum(active.values()),
        "active_by_endpoint": {_text(backend): flows for backend, flows in active.items()},
    }


def _members(backends: Backends) -> list[str]:
    return [_text(member) for member in backends.members]


def _text(address: bytes) -> str:
    return str(unpack_address(address))
