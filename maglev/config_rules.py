"""What a configuration must keep that no single object can see: names, roles, shards, nesting.

A rule takes a draft, which holds the objects that are sound in themselves, and yields what breaks it: field, value,
what is allowed. It stays silent about objects that are not there: those have been complained about already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from maglev.config_fields import A_NAME, NAME_PATTERN
from maglev.config_objects import ForwarderOptions, MaglevMachine, Pool, Vip
from maglev.config_pools import reachable
from maglev.config_prefixes import PrefixGroups, misfit, placed
from maglev.flow import Address, pack_address
from maglev.quic import server_id_of

Finding = tuple[str, object, str]  # field, value, allowed
SHARD_FIELDS = ("shard", "also_announced_by", "also_served_by")  # of a VIP


@dataclass(frozen=True)
class Draft:
    """The sound objects of a document, by the path at which each stands there; pools and prefix groups by name."""

    maglevs: Mapping[str, MaglevMachine]
    pools: Mapping[str, Pool]
    vips: Mapping[str, Vip]
    pool_names: frozenset[str]  # also of pools that are not sound
    prefix_groups: PrefixGroups
    group_names: frozenset[str]  # likewise
    all_maglevs: bool  # whether `maglevs` holds all of them
    forwarder: ForwarderOptions

    @cached_property
    def placed_vips(self) -> tuple[tuple[str, Vip], ...]:
        """VIPs at their addresses, each with its path; without those of which something else has to be mended first."""
        return tuple(
            (path, at)
            for path, vip in self.vips.items()
            if vip.prefix_group is None or self._fits(vip, vip.prefix_group)
            for at in placed(vip, self.prefix_groups)
        )

    def _fits(self, vip: Vip, group: str) -> bool:
        return group in self.prefix_groups and not any(misfit(vip, prefix) for prefix in self.prefix_groups[group])


def pool_names_are_names(draft: Draft) -> Iterator[Finding]:
    for name in sorted(draft.pool_names):
        if not re.fullmatch(NAME_PATTERN, name):
            yield f"pools.{name}", name, A_NAME


def prefix_group_names_are_names(draft: Draft) -> Iterator[Finding]:
    for name in sorted(draft.group_names):
        if not re.fullmatch(NAME_PATTERN, name):
            yield f"prefix_groups.{name}", name, A_NAME


def at_least_one_maglev(draft: Draft) -> Iterator[Finding]:
    if draft.all_maglevs and not draft.maglevs:
        yield "maglevs", "an empty list", "a list of at least one Maglev, such as {name: m1, address: 10.1.1.2}"


def names_are_unique(draft: Draft) -> Iterator[Finding]:
    yield from _repeated(((f"{path}.name", item.name) for path, item in draft.maglevs.items()), "another name")
    yield from _repeated(((f"{path}.name", item.name) for path, item in draft.vips.items()), "another name")


def maglev_addresses_are_unique(draft: Draft) -> Iterator[Finding]:
    yield from _repeated(_maglev_addresses(draft), "an address of this Maglev's own")


def vips_are_unique(draft: Draft) -> Iterator[Finding]:
    """Anycast has the same again in another shard."""
    found = (
        (path, f"{vip.shown} {vip.protocol_shown} {vip.port}{f' of {vip.held_in}' if vip.held_in else ''}")
        for path, vip in draft.placed_vips
    )
    complained = set()
    for finding in _repeated(found, "an address, protocol and port that no other VIP has"):
        if finding[0] not in complained:  # once, however many prefixes its group has
            complained.add(finding[0])
            yield finding


def prefix_groups_are_known(draft: Draft) -> Iterator[Finding]:
    for path, vip in draft.vips.items():
        if vip.prefix_group is not None and vip.prefix_group not in draft.group_names:
            yield f"{path}.prefix_group", vip.prefix_group, f"the name of a prefix group: {_listing(draft.group_names)}"


def suffixes_fit_their_prefixes(draft: Draft) -> Iterator[Finding]:
    for path, vip in draft.vips.items():
        room = [misfit(vip, prefix) for prefix in draft.prefix_groups.get(vip.prefix_group or "", ())]
        if any(room):
            shown = str(vip.suffix) if vip.prefix_length is None else f"{vip.suffix}/{vip.prefix_length}"
            yield f"{path}.suffix", shown, next(filter(None, room))


def prefixes_do_not_overlap(draft: Draft) -> Iterator[Finding]:
    """An address in two prefixes would belong to two groups; sorted, a prefix comes right behind what holds it."""
    listed = [
        (prefix.version, prefix.network_address.packed, prefix.prefixlen, f"prefix_groups.{name}[{i}]", prefix)
        for name, group in draft.prefix_groups.items()
        for i, prefix in enumerate(group)
    ]
    first_at, first = "", None
    for *_, field, prefix in sorted(listed):
        if first is not None and prefix.overlaps(first):
            yield field, str(prefix), f"a prefix that overlaps no other; {first_at} has {first}"
        else:
            first_at, first = field, prefix


def prefixes_of_vips_keep_out_of_groups(draft: Draft) -> Iterator[Finding]:
    """In a group's prefix the longest suffix counts, and a VIP's own prefix would stand between the two."""
    grouped = [(name, prefix) for name, group in draft.prefix_groups.items() for prefix in group]
    for path, vip in draft.vips.items():
        if vip.address is not None and vip.prefix_length is not None:
            held = next(((name, prefix) for name, prefix in grouped if prefix.overlaps(vip.network)), None)
            if held:
                allowed = f"an address, or a prefix that overlaps none of a prefix group; {held[0]} has {held[1]}"
                yield f"{path}.address", vip.shown, allowed


def pools_list_each_thing_once(draft: Draft) -> Iterator[Finding]:
    for name, pool in draft.pools.items():
        addresses = ((f"{_at(name, i)}.address", endpoint.address) for i, endpoint in enumerate(pool.endpoints))
        yield from _repeated(addresses, "each endpoint once in a pool; give it a larger weight instead")
        nested = ((f"pools.{name}.pools[{i}]", inner) for i, inner in enumerate(pool.pools))
        yield from _repeated(nested, "each pool once")


def pools_are_known(draft: Draft) -> Iterator[Finding]:
    allowed = f"the name of a pool: {_listing(draft.pool_names)}"
    named = [*_pools_of_vips(draft)]
    named += [(f"pools.{name}.pools[{i}]", p) for name, pool in draft.pools.items() for i, p in enumerate(pool.pools)]
    yield from ((field, name, allowed) for field, name in named if name not in draft.pool_names)


def pools_do_not_contain_themselves(draft: Draft) -> Iterator[Finding]:
    nested = {name: set(pool.pools) for name, pool in draft.pools.items()}
    while cycle := _cycle(nested):
        holder, inner = cycle[-2:]
        field = f"pools.{holder}.pools[{draft.pools[holder].pools.index(inner)}]"
        yield field, inner, f"a pool that does not lead back here, as {' -> '.join(cycle)} does"
        nested[holder].remove(inner)


def pools_in_use_have_endpoints(draft: Draft) -> Iterator[Finding]:
    for field, pool in _pools_of_vips(draft):
        names = reachable(draft.pools, pool)
        known = names <= draft.pools.keys()
        if known and not any(draft.pools[name].endpoints for name in names):
            yield field, pool, "a pool with at least one endpoint in it or in the pools nested in it"


def vips_name_each_pool_once(draft: Draft) -> Iterator[Finding]:
    for path, vip in draft.vips.items():
        yield from _repeated(_pools_of(path, vip), "each pool once")


def shards_are_served(draft: Draft) -> Iterator[Finding]:
    served = {machine.shard for machine in draft.maglevs.values()}
    allowed = f"a shard that some Maglev serves: {_listing(served)}"
    if served and draft.all_maglevs:
        named = (each for path, vip in draft.vips.items() for each in _shards_of(path, vip))
        yield from ((field, shard, allowed) for field, shard in named if shard not in served)


def vips_name_each_shard_once(draft: Draft) -> Iterator[Finding]:
    for path, vip in draft.vips.items():
        yield from _repeated(_shards_of(path, vip), "each shard once")


def vips_of_an_address_share_their_shards(draft: Draft) -> Iterator[Finding]:
    """Routers know addresses, not ports: they would spread each VIP over the Maglevs of both.

    Which is what anycast is for; then all VIPs of the address are.
    """
    first: dict[Hashable, tuple[str, Vip]] = {}
    complained = set()
    for path, vip in draft.placed_vips:
        for key, fields in ((vip.network, ("anycast",)), ((vip.network, vip.held_in), SHARD_FIELDS)):
            other_path, other = first.setdefault(key, (path, vip))
            for field in fields:
                own, theirs = getattr(vip, field), getattr(other, field)
                if own != theirs and (path, field) not in complained:  # once, however many prefixes its group has
                    complained.add((path, field))
                    allowed = f"what {other_path} says, which has the same address {other.shown}: {_said(theirs)}"
                    yield f"{path}.{field}", _said(own), allowed


def _said(value: str | bool | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"[{', '.join(value)}]"


def addresses_belong_to_machines(draft: Draft) -> Iterator[Finding]:
    """An IPv6 address of one link only is none: nobody else can reach it, and it means nothing without that link."""
    allowed = "the address of a machine: not unspecified, loopback, multicast or reserved, in IPv6 not link-local"
    for field, address in _addresses(draft):
        is_special = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved
        if is_special or (address.version == 6 and address.is_link_local):
            yield field, str(address), allowed


def idle_timeouts_fit_the_table(draft: Draft) -> Iterator[Finding]:
    longest_s = draft.forwarder.connection_table.idle_timeout_s
    for path, vip in draft.vips.items():
        if vip.idle_timeout_s is not None and vip.idle_timeout_s > longest_s:
            allowed = f"at most {longest_s:g}, which forwarder.connection_table.idle_timeout_s says"
            yield f"{path}.idle_timeout_s", vip.idle_timeout_s, allowed


def server_ids_are_unique(draft: Draft) -> Iterator[Finding]:
    """Behind a VIP that goes by QUIC's connection IDs, each endpoint is known by the end of its address."""
    for path, vip in draft.vips.items():
        if vip.quic_cid is None:
            continue
        size, first = vip.quic_cid.server_id_bytes, dict[bytes, Address]()
        for address in _endpoints_behind(draft, vip):
            other = first.setdefault(server_id_of(pack_address(address), size), address)
            if other != address:
                allowed = f"as many as it takes to tell endpoints apart: {other} and {address} end in the same {size}"
                yield f"{path}.quic_cid.server_id_bytes", size, allowed
                break


def _endpoints_behind(draft: Draft, vip: Vip) -> list[Address]:
    """Returns the addresses of all endpoints that may serve a VIP, in order."""
    names = {name for pool in vip.pools for name in reachable(draft.pools, pool)} & draft.pools.keys()
    found = {endpoint.address for name in names for endpoint in draft.pools[name].endpoints}
    return sorted(found, key=pack_address)


def endpoints_are_in_reach(draft: Draft) -> Iterator[Finding]:
    """A Maglev sends to endpoints from an address of their family; one that cannot would choose unlike its peers."""
    complained = set()
    served = {(shard, pool) for vip in draft.vips.values() for shard in vip.served_by for pool in vip.pools}
    for shard, pool in sorted(served):
        cannot = {version: _without(draft, shard, version) for version in (4, 6)}
        for name in sorted(reachable(draft.pools, pool) & draft.pools.keys()):
            for i, endpoint in enumerate(draft.pools[name].endpoints):
                field, lacking = f"{_at(name, i)}.address", cannot[endpoint.address.version]
                if lacking and field not in complained:
                    complained.add(field)
                    allowed = f"an address of a family that all Maglevs of shard {shard} have; "
                    allowed += f"without IPv{endpoint.address.version} are {_listing(lacking)}"
                    yield field, str(endpoint.address), allowed


def _without(draft: Draft, shard: str, version: int) -> set[str]:
    """Returns the names of a shard's Maglevs that have no address of a family."""
    machines = (machine for machine in draft.maglevs.values() if machine.shard == shard)
    return {machine.name for machine in machines if version not in {each.version for each in machine.addresses}}


def vip_addresses_are_virtual(draft: Draft) -> Iterator[Finding]:
    """A VIP on a machine of its own would be answered by that machine's kernel."""
    real = {address: field for field, address in _maglev_addresses(draft)}
    for name, pool in draft.pools.items():
        real |= {endpoint.address: f"{_at(name, i)}.address" for i, endpoint in enumerate(pool.endpoints)}
    for path, vip in draft.placed_vips:
        address = _machine_in(vip, real)
        if address is not None:
            yield _where(draft, path), vip.shown, f"addresses that no machine has; {real[address]} has {address}"


RULES: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    at_least_one_maglev,
    pool_names_are_names,
    prefix_group_names_are_names,
    prefix_groups_are_known,
    suffixes_fit_their_prefixes,
    prefixes_do_not_overlap,
    prefixes_of_vips_keep_out_of_groups,
    names_are_unique,
    maglev_addresses_are_unique,
    vips_are_unique,
    pools_list_each_thing_once,
    pools_are_known,
    pools_do_not_contain_themselves,
    pools_in_use_have_endpoints,
    vips_name_each_pool_once,
    shards_are_served,
    vips_name_each_shard_once,
    vips_of_an_address_share_their_shards,
    addresses_belong_to_machines,
    idle_timeouts_fit_the_table,
    server_ids_are_unique,
    endpoints_are_in_reach,
    vip_addresses_are_virtual,
)


def _addresses(draft: Draft) -> Iterator[tuple[str, Address]]:
    yield from _maglev_addresses(draft)
    yield from ((_where(draft, path), vip.network.network_address) for path, vip in draft.placed_vips)
    for name, pool in draft.pools.items():
        for i, endpoint in enumerate(pool.endpoints):
            yield f"{_at(name, i)}.address", endpoint.address


def _maglev_addresses(draft: Draft) -> Iterator[tuple[str, Address]]:
    for path, machine in draft.maglevs.items():
        yield from zip((f"{path}.address", f"{path}.address6"), machine.addresses, strict=False)


def _where(draft: Draft, path: str) -> str:
    """Returns the field that gives the VIP at a path its addresses."""
    return f"{path}.address" if draft.vips[path].prefix_group is None else f"{path}.suffix"


def _machine_in(vip: Vip, machines: Mapping[Address, str]) -> Address | None:
    """Returns the first address of a machine that belongs to a VIP, None if there is none."""
    if vip.prefix_length is None:
        address = vip.network.network_address
        return address if address in machines else None
    return next(filter(vip.network.__contains__, machines), None)


def _pools_of_vips(draft: Draft) -> Iterator[tuple[str, str]]:
    for path, vip in draft.vips.items():
        yield from _pools_of(path, vip)


def _pools_of(path: str, vip: Vip) -> Iterator[tuple[str, str]]:
    yield f"{path}.pool", vip.pool
    yield from ((f"{path}.backup_pools[{i}]", pool) for i, pool in enumerate(vip.backup_pools))


def _shards_of(path: str, vip: Vip) -> Iterator[tuple[str, str]]:
    yield f"{path}.shard", vip.shard
    for field in SHARD_FIELDS[1:]:
        yield from ((f"{path}.{field}[{i}]", shard) for i, shard in enumerate(getattr(vip, field)))


def _at(pool_name: str, index: int) -> str:
    return f"pools.{pool_name}.endpoints[{index}]"


def _repeated(found: Iterable[tuple[str, Hashable]], allowed: str) -> Iterator[Finding]:
    first: dict[Hashable, str] = {}
    for field, value in found:
        if value in first:
            yield field, str(value), f"{allowed}; {first[value]} has this one"
        first.setdefault(value, field)


def _cycle(nested: Mapping[str, set[str]]) -> list[str]:
    """Returns one cycle as names, the first again at the end, each holding the next; empty if there is none."""
    try:
        TopologicalSorter(nested).prepare()
    except CycleError as error:
        names = error.args[1][:0:-1]
        start = names.index(min(names))
        return [*names[start:], *names[: start + 1]]
    return []


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "(there is none)"
