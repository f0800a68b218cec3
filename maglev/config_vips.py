"""VIPs (Maglev §4.2): which packets are one's own, which pools serve them, and how their connections are kept."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from maglev.config_fields import A_NAME, ConfigObject, Name, read_address, read_interface
from maglev.flow import PROTOCOL_NUMBERS, TCP, UDP
from maglev.quic import LONGEST_SERVER_ID_BYTES, NOT_ROUTABLE

WITH_PORTS = ("tcp", "udp", TCP, UDP)
A_VIP_ADDRESS = "an IP address or prefix, such as 192.0.2.1 or 192.0.2.0/28"
A_PREFIX_GROUP = "the name of a prefix group, for a VIP without an address of its own"
A_SUFFIX = "what follows the prefixes of the group, such as 0.0.0.1 or ::1, or a block such as 0.0.0.64/28"
SHARDS = "a list of the names of shards"
A_PROTOCOL = "tcp, udp, sctp, esp, ah, gre, or a protocol number from 0 to 255"
PASSED_OVER_IN_V6 = (0, 43, 44, 51, 60)  # extension headers, AH among them (RFC 8200 §4): a packet is what follows them


def _vip_address(value: object) -> object:
    """Reads an address; a prefix that has not been taken apart yet has bits set behind it, or is none."""
    return _address_or_prefix(value, A_VIP_ADDRESS)


def _suffix(value: object) -> object:
    return _address_or_prefix(value, A_SUFFIX)


def _address_or_prefix(value: object, allowed: str) -> object:
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return read_address(value)
    prefix = read_interface(value)
    if prefix is None:
        raise ValueError(allowed)
    raise ValueError(f"a prefix without bits set behind it: {prefix.network}, or one address: {prefix.ip}")


def _protocol(value: object) -> object:
    """Reads a name or a number, in one go: a union would say of either what is wrong with it."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255
    if is_number or (isinstance(value, str) and value in PROTOCOL_NUMBERS):
        return value
    raise ValueError(A_PROTOCOL)


class QuicCid(ConfigObject):
    """How a VIP's endpoints say in QUIC connection IDs who they are: QUIC-LB without a key (`maglev.quic`)."""

    config_id: Annotated[int, Field(strict=True, ge=0, lt=NOT_ROUTABLE)] = Field(
        default=0,
        description=f"the first three bits of such connection IDs, a whole number from 0 to {NOT_ROUTABLE - 1}",
    )
    server_id_bytes: Annotated[int, Field(strict=True, ge=1, le=LONGEST_SERVER_ID_BYTES)] = Field(
        default=4,
        description="how many bytes of an endpoint's address, the last ones, are its server ID: "
        f"a whole number from 1 to {LONGEST_SERVER_ID_BYTES}",
    )


class Vip(ConfigObject):
    """A virtual address or prefix, protocol and port that the Maglevs of a shard serve from a pool (§4.2).

    While it moves to another shard, both serve it: `maglev.moving` says in which order.
    An `anycast` one shares its address with VIPs of other shards, which may be elsewhere and have other endpoints.
    One of a prefix group has a suffix instead of an address, until it is `config_prefixes.placed`.
    """

    name: Name = Field(description=A_NAME)
    address: Annotated[IPv4Address | IPv6Address | None, BeforeValidator(_vip_address)] = Field(
        description=f"{A_VIP_ADDRESS}, or a prefix_group and a suffix instead"
    )
    prefix_group: Name | None = Field(default=None, description=A_PREFIX_GROUP)
    suffix: Annotated[IPv4Address | IPv6Address | None, BeforeValidator(_suffix)] = Field(
        default=None, description=A_SUFFIX
    )
    prefix_length: Annotated[int, Field(strict=True)] | None = Field(
        default=None, description="the bits of the address that count, if it is a prefix: a whole number"
    )
    protocol: Annotated[str | int, BeforeValidator(_protocol)] = Field(description=A_PROTOCOL)
    port: Annotated[int, Field(strict=True, ge=0, le=65535)] = Field(
        description="a whole number from 1 to 65535, or 0 for any; none for protocols other than tcp and udp"
    )
    pool: Name = Field(description="the name of a pool")
    backup_pools: tuple[Name, ...] = Field(default=(), description="a list of the names of pools")
    min_healthy_share: Annotated[float, Field(strict=True, gt=0, le=1)] = Field(
        default=0.5,
        description="the share of a pool's endpoints that must be healthy for it to serve, above 0, at most 1",
    )
    shard: Name = Field(default="default", description=A_NAME)
    also_announced_by: tuple[Name, ...] = Field(default=(), description=SHARDS)
    also_served_by: tuple[Name, ...] = Field(default=(), description=SHARDS)
    anycast: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="true, for a VIP that stays in its shard while others announce its address too, or false",
    )
    affinity: Literal["connection", "client"] = Field(default="connection", description="connection or client")
    idle_timeout_s: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="seconds, a number above 0, at most the connection table's idle_timeout_s"
    )
    new_flows_per_s: Annotated[float, Field(strict=True, gt=0, le=1e9)] | None = Field(
        default=None, description="new flows a second that each Maglev takes, a number above 0, at most 1000000000"
    )
    quic_cid: QuicCid | None = Field(
        default=None, description="how QUIC connection IDs name endpoints, such as {config_id: 0, server_id_bytes: 4}"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        """Gives protocols without ports the port 0, and takes an address with a length, such as 192.0.2.0/28, apart.

        A VIP of a prefix group has no address, which is said by None; any other must have one.
        """
        if not isinstance(value, dict):
            return value
        if value.get("protocol") not in (None, *WITH_PORTS):
            value = {"port": 0} | value
        if value.get("address") is None:
            value = {key: item for key, item in value.items() if key != "address"}
            value |= {"address": None} if value.get("prefix_group") is not None else {}
        return _taken_apart(_taken_apart(value, "address"), "suffix")

    @field_validator("prefix_group")
    @classmethod
    def _group_has_no_address(cls, group: str | None, info: ValidationInfo) -> str | None:
        if group is not None and info.data.get("address") is not None:
            raise ValueError("a prefix_group with a suffix, or an address, not both")
        return group

    @field_validator("suffix")
    @classmethod
    def _suffix_needs_a_group(cls, suffix: object, info: ValidationInfo) -> object:
        if "prefix_group" not in info.data:
            return suffix
        if (suffix is None) != (info.data["prefix_group"] is None):
            raise ValueError(f"{A_SUFFIX}; it goes with a prefix_group, and a prefix_group with it")
        return suffix

    @field_validator("prefix_length")
    @classmethod
    def _length_suits_address(cls, length: int | None, info: ValidationInfo) -> int | None:
        """Returns None for the length of a whole address: there is one way to say each thing."""
        address = info.data.get("address") or info.data.get("suffix")
        if length is None or address is None:
            return length
        try:
            ip_network((address, length))
        except ValueError:
            allowed = f"a whole number from 0 to {address.max_prefixlen}, with no bits set in {address} behind so many"
            raise ValueError(allowed) from None
        return None if length == address.max_prefixlen else length

    @field_validator("protocol")
    @classmethod
    def _protocol_is_seen(cls, protocol: str | int, info: ValidationInfo) -> str | int:
        number = PROTOCOL_NUMBERS.get(protocol, protocol) if isinstance(protocol, str) else protocol
        address = info.data.get("address") or info.data.get("suffix")
        if isinstance(address, IPv6Address) and number in PASSED_OVER_IN_V6:
            raise ValueError("a protocol that is no extension header of IPv6: Maglev looks at what follows those")
        return protocol

    @field_validator("port")
    @classmethod
    def _port_suits_protocol(cls, port: int, info: ValidationInfo) -> int:
        protocol = info.data.get("protocol")
        if port != 0 and protocol not in (None, *WITH_PORTS):
            raise ValueError(f"0, or no port at all: Maglev looks for ports in tcp and udp only, not in {protocol}")
        return port

    @field_validator("anycast")
    @classmethod
    def _anycast_stays(cls, anycast: bool, info: ValidationInfo) -> bool:
        if anycast and (info.data.get("also_announced_by") or info.data.get("also_served_by")):
            raise ValueError("false for a VIP that moves: anycast is one VIP in each shard")
        return anycast

    @field_validator("quic_cid")
    @classmethod
    def _quic_suits_protocol(cls, cid: QuicCid | None, info: ValidationInfo) -> QuicCid | None:
        protocol = info.data.get("protocol")
        if cid is not None and protocol not in (None, "udp", UDP):
            raise ValueError(f"none: QUIC comes over udp, not over {protocol}")
        return cid

    @property
    def protocol_number(self) -> int:
        """The protocol's IANA number."""
        return PROTOCOL_NUMBERS[self.protocol] if isinstance(self.protocol, str) else self.protocol

    @property
    def protocol_shown(self) -> str:
        """The protocol as a person writes it: by its name, if it has one."""
        names = {number: name for name, number in PROTOCOL_NUMBERS.items()}
        return names.get(self.protocol_number, str(self.protocol_number))

    @property
    def pools(self) -> tuple[str, ...]:
        """The pool that serves the VIP, and those that do instead, in their order."""
        return (self.pool, *self.backup_pools)

    @property
    def announced_by(self) -> tuple[str, ...]:
        """The shards whose Maglevs announce the VIP: its own, and others while it moves."""
        return (self.shard, *self.also_announced_by)

    @property
    def served_by(self) -> tuple[str, ...]:
        """The shards whose Maglevs forward its packets: those that announce it, and others that may still get some."""
        return (*self.announced_by, *self.also_served_by)

    @property
    def backed_by(self) -> str:
        """What stands behind the VIP, in words that are equal for VIPs behind which the same stands."""
        if not self.backup_pools:
            return self.pool
        return f"{', else '.join(self.pools)} (below {self.min_healthy_share:g})"

    @property
    def network(self) -> IPv4Network | IPv6Network:
        """All addresses of the VIP; ValueError for one of a prefix group that has not been placed."""
        if self.address is None:
            raise ValueError(f"{self.name} has an address in each prefix of the group {self.prefix_group}")
        length = self.address.max_prefixlen if self.prefix_length is None else self.prefix_length
        return ip_network((self.address, length))

    @property
    def held_in(self) -> str | None:
        """The shard to which its address belongs; None, if that is one shard's, whichever that is now."""
        return self.shard if self.anycast else None

    @property
    def shown(self) -> str:
        """The VIP's address as a person writes it: 192.0.2.1, or 192.0.2.0/28."""
        if self.address is None:
            return f"{self.suffix} in each prefix of {self.prefix_group}"
        return str(self.address) if self.prefix_length is None else str(self.network)


def _taken_apart(value: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns what is said of a VIP with the length behind an address as its prefix_length."""
    prefix = read_interface(value.get(key))
    if prefix is None or prefix.ip != prefix.network.network_address:
        return value
    if value.get("prefix_length") is not None:
        raise ValueError(f"a length after the {key} or a prefix_length, not both")
    return value | {key: prefix.ip, "prefix_length": prefix.network.prefixlen}
