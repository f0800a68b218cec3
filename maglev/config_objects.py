"""A whole configuration (Maglev §2.2): Maglevs, pools, VIPs, forwarder options; what of it belongs together.

Frozen values. What an object says of itself is in `config_pools`, `config_checks`, `config_vips` and
`config_forwarder`; what takes more than one object to see is in `config_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv6Address
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from maglev.config_checks import HealthCheck
from maglev.config_endpoint import EndpointOptions
from maglev.config_fields import A_NAME, AN_ADDRESS, IP, ConfigObject, Name, read_address
from maglev.config_forwarder import ConnectionTable, ForwarderOptions, Fragments, Metrics
from maglev.config_pools import Endpoint, Member, Pool, flattened
from maglev.config_prefixes import Prefixes, placed
from maglev.config_vips import QuicCid, Vip
from maglev.errors import MaglevError
from maglev.flow import Address, pack_address

__all__ = [
    "Config",
    "ConnectionTable",
    "Endpoint",
    "EndpointOptions",
    "ForwarderOptions",
    "Fragments",
    "HealthCheck",
    "MaglevMachine",
    "Member",
    "Metrics",
    "Pool",
    "QuicCid",
    "Vip",
]

A_SECOND_ADDRESS = "an IPv6 address, such as fd00:1:1::2, beside an IPv4 address in `address`"


def _address6(value: object) -> object:
    try:
        parsed = read_address(value)
    except ValueError:
        parsed = None
    if not isinstance(parsed, IPv6Address):
        raise ValueError(A_SECOND_ADDRESS)
    return parsed


IP6 = Annotated[IPv6Address, BeforeValidator(_address6)]


class MaglevMachine(ConfigObject):
    """One Maglev of the cluster; it serves the VIPs of its shard.

    It reaches endpoints from its address of their family: one with both has its IPv6 address in `address6`.
    """

    name: Name = Field(description=A_NAME)
    address: IP = Field(description=AN_ADDRESS)
    address6: IP6 | None = Field(default=None, description=A_SECOND_ADDRESS)
    shard: Name = Field(default="default", description=A_NAME)

    @field_validator("address6")
    @classmethod
    def _address6_is_the_second(cls, address6: IPv6Address | None, info: ValidationInfo) -> IPv6Address | None:
        if address6 is not None and isinstance(info.data.get("address"), IPv6Address):
            raise ValueError(A_SECOND_ADDRESS)
        return address6

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Returns its addresses, at most one of each family, IPv4 first."""
        return (self.address,) if self.address6 is None else (self.address, self.address6)

    def address_towards(self, peer: Address) -> Address | None:
        """Returns the address from which it reaches a peer: the one of the peer's family, None if it has none."""
        return next((own for own in self.addresses if own.version == peer.version), None)


class Config(ConfigObject):
    """A whole configuration. `config.parse` and `config.load` make one that keeps all rules."""

    shard: Name = "default"
    maglevs: tuple[MaglevMachine, ...] = ()
    pools: Mapping[str, Pool] = {}
    prefix_groups: Mapping[str, Prefixes] = {}
    vips: tuple[Vip, ...] = ()  # as they are written
    forwarder: ForwarderOptions = ForwarderOptions()
    endpoint: EndpointOptions = EndpointOptions()
    metrics: Metrics = Metrics()

    def maglev(self, name: str) -> MaglevMachine:
        """Returns the Maglev of that name; MaglevError if there is none."""
        for machine in self.maglevs:
            if machine.name == name:
                return machine
        raise MaglevError(f"no Maglev is called {name}; there are: {', '.join(sorted(m.name for m in self.maglevs))}")

    def peers(self, shard: str) -> tuple[Member, ...]:
        """Returns the Maglevs of a shard, sorted by address, as members of the pool that fragments are spread over."""
        check = (self.forwarder.fragments.health_check,)
        machines = sorted((m for m in self.maglevs if m.shard == shard), key=lambda m: pack_address(m.address))
        return tuple(Member(machine.address, 1.0, check) for machine in machines)

    @property
    def maglev_addresses(self) -> frozenset[Address]:
        """Returns all addresses of all Maglevs: from any of them one may send packets on to another."""
        return frozenset(address for machine in self.maglevs for address in machine.addresses)

    def allies(self, shard: str) -> tuple[str, ...]:
        """Returns the shards that serve a VIP together with one, itself first: usually that is alone."""
        shared = (vip.served_by for vip in self.vips if shard in vip.served_by)
        return tuple(dict.fromkeys((shard, *(other for shards in shared for other in shards))))

    @cached_property
    def placed_vips(self) -> tuple[Vip, ...]:
        """All VIPs at their addresses: one of a prefix group stands here once for each prefix, under one name."""
        return tuple(at for vip in self.vips for at in placed(vip, self.prefix_groups))

    def vips_of(self, shard: str) -> tuple[Vip, ...]:
        """Returns the VIPs that a shard's Maglevs forward, at their addresses, sorted by address, protocol and port."""
        return tuple(sorted((vip for vip in self.placed_vips if shard in vip.served_by), key=_place))

    def sharing_addresses_with(self, name: str) -> frozenset[str]:
        """Returns the names of a VIP and of all that share an address with it, or with one that does.

        Routers know addresses only: what becomes of one of them becomes of them all, but for anycast in other shards.
        """
        names: set[str] = set()
        more = {name}
        while more != names:
            names = more
            places = {(vip.network, vip.held_in) for vip in self.placed_vips if vip.name in names}
            more = {vip.name for vip in self.placed_vips if (vip.network, vip.held_in) in places}
        return frozenset(names)

    def pool_members(self, pool_name: str) -> tuple[Member, ...]:
        """Returns a pool flattened, sorted by address; KeyError if there is no such pool.

        An endpoint that several nested pools list has the sum of its weights and must pass the checks of them all.
        Each listing is checked as its own pool says, or else the nearest pool around it that says anything.
        """
        return self.members_by_pool[pool_name]

    def vip_members(self, vip: Vip) -> tuple[Member, ...]:
        """Returns the members of all pools that may serve a VIP."""
        return tuple(dict.fromkeys(member for pool in vip.pools for member in self.pool_members(pool)))

    @cached_property
    def members_by_pool(self) -> Mapping[str, tuple[Member, ...]]:
        """All pools flattened, worked out once: forwarders ask for members many times a second."""
        return flattened(self.pools)


def _place(vip: Vip) -> tuple[bytes, int, int, int]:
    network = vip.network
    return pack_address(network.network_address), network.prefixlen, vip.protocol_number, vip.port
