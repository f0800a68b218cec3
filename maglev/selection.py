"""From configuration and health to what a forwarder decides by: the backends behind each VIP now, and its table.

Pure. Kept apart from `vips`, which packets meet, because the lookup tables that it builds bring in NumPy and Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .baselines import TABLES
from .config import Config, Member, Vip
from .conntrack import ConnectionTable
from .flow import pack_address
from .fragments import Limits
from .shares import most_entries
from .vips import Backends, Cluster, VipMap, build_backends, build_map, prefix_of


def connection_capacity(config: Config) -> int:
    """Returns how many connections a configuration wants remembered: 0 if the table is switched off."""
    options = config.forwarder.connection_table
    return options.capacity if options.enabled else 0


def most_per_source(config: Config) -> int | None:
    """Returns how many connections of one source a configuration wants remembered, None for all that there is room for.

    Each packet thread has a table of its own, of which this is a share.
    """
    return most_entries(connection_capacity(config), config.forwarder.connection_table.max_share_per_source)


def fragment_limits(config: Config) -> Limits:
    """Returns how much a configuration wants remembered of fragments."""
    options = config.forwarder.fragments
    return Limits(options.packets, options.held_fragments, options.held_bytes, options.timeout_s)


def connection_table(config: Config) -> ConnectionTable:
    """Returns the connection table that a configuration asks for."""
    idle_timeout_s = config.forwarder.connection_table.idle_timeout_s
    return ConnectionTable(connection_capacity(config), idle_timeout_s, most_per_source(config))


def carried_over(served: VipMap, old: Config, new: Config, shard: str) -> frozenset[Member]:
    """Returns the members of a new configuration that may go on until their checks have come to a verdict.

    These are endpoints that serve a VIP now, as `served` says, and are to serve the same VIP: a check that a change has
    altered knows nothing yet, and must not take its endpoints' connections away meanwhile.
    """
    usable = {
        _served_at(vip): served.pools[vip.backed_by].usable
        for vip in old.vips_of(shard)
        if vip.backed_by in served.pools
    }
    return frozenset(
        member
        for vip in new.vips_of(shard)
        for member in new.vip_members(vip)
        if pack_address(member.address) in usable.get(_served_at(vip), ())
    )


def _served_at(vip: Vip) -> tuple[Any, ...]:
    return vip.network, vip.protocol, vip.port


PEERS = "(Maglevs of {})"  # no pool can be called so


def serving_pool(config: Config, vip: Vip, is_healthy: Callable[[Member], bool]) -> str:
    """Returns the pool that takes a VIP's new flows: the first of which enough is healthy, or else the healthiest.

    What has weight 0 takes no new flows anyway, and does not count.
    """

    if not vip.backup_pools:
        return vip.pool

    def healthy_share(pool: str) -> float:
        taking = [member for member in config.pool_members(pool) if member.weight > 0]
        return sum(map(is_healthy, taking)) / len(taking) if taking else 0.0

    shares = {pool: healthy_share(pool) for pool in vip.pools}
    enough = [pool for pool, share in shares.items() if share >= vip.min_healthy_share]
    return enough[0] if enough else max(shares, key=lambda pool: shares[pool])


def members_behind(config: Config, vip: Vip, is_healthy: Callable[[Member], bool]) -> list[Member]:
    """Returns the healthy members behind a VIP: those of the pool that serves it; those of the others drained.

    So flows that came to a backup pool stay there when the first pool is well again.
    """
    serving = serving_pool(config, vip, is_healthy)
    found = {member.address: member for member in config.pool_members(serving) if is_healthy(member)}
    for member in config.vip_members(vip):
        if member.address not in found and is_healthy(member):
            found[member.address] = member._replace(weight=0.0)
    return sorted(found.values(), key=lambda member: pack_address(member.address))


class MapBuilder:
    """Builds maps, and builds anew only the pools that have changed since the last one."""

    def __init__(self) -> None:
        self._built: dict[str, tuple[Any, Backends]] = {}  # pool: what it was built from, what was built

    def build(self, config: Config, shard: str, is_healthy: Callable[[Member], bool]) -> VipMap:
        """Returns the map of the VIPs that a shard serves, with the healthy members of their pools behind them."""

        vips = {vip.backed_by: vip for vip in config.vips_of(shard)}

        def backends_of(backed_by: str) -> Backends:
            return self._backends(backed_by, config, members_behind(config, vips[backed_by], is_healthy))

        return build_map(config.vips_of(shard), backends_of, self._cluster(config, shard, is_healthy))

    def _cluster(self, config: Config, shard: str, is_healthy: Callable[[Member], bool]) -> Cluster:
        """Returns the pools that fragments are spread over: a VIP's are the living Maglevs of its shard."""
        allies = config.allies(shard)
        owners = {
            ally: self._backends(PEERS.format(ally), config, list(filter(is_healthy, config.peers(ally))))
            for ally in allies
        }
        known = frozenset(map(pack_address, config.maglev_addresses))
        elsewhere = {prefix_of(vip.network): owners[vip.shard] for vip in config.vips_of(shard) if vip.shard != shard}
        return Cluster(owners.pop(shard), known, elsewhere, owners)

    def _backends(self, pool: str, config: Config, members: Sequence[Member]) -> Backends:
        options = config.forwarder
        basis = (options.hash, options.table_size, [(member.address, member.weight) for member in members])
        known = self._built.get(pool)
        if known is None or known[0] != basis:
            known = self._built[pool] = basis, build_backends(members, options.table_size, TABLES[options.hash])
        return known[1]
