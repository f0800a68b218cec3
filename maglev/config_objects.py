"""The config objects themselves (Maglev §2.2): Maglevs, pools of endpoints, health checks, VIPs, forwarder options.

Frozen values. Each field's `description` is what an error message says is allowed there; validators raise a
`ValueError` whose text says the same. What takes more than one object to see is in `config_rules`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from functools import cached_property
from graphlib import TopologicalSorter
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from maglev.errors import MaglevError
from maglev.flow import PROTOCOL_NUMBERS, TCP, UDP, Address, pack_address
from maglev.primes import is_prime, nearest_primes

LARGEST_TABLE = 1 << 24  # slots: 25 times the largest table in the paper
MOST_CONNECTIONS = 1 << 26
MOST_THREADS = 64

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"  # names end up in file names, host names and metrics
A_NAME = "a name: letters, digits and . _ - (at most 63, the first a letter or digit; a number in quotes)"
WITH_PORTS = ("tcp", "udp", TCP, UDP)
HEX = "hex:"  # before the digits, where a text of a health check is meant in hex
AN_ADDRESS = "an IP address, such as 192.0.2.1"
A_VIP_ADDRESS = "an IP address or prefix, such as 192.0.2.1 or 192.0.2.0/28"
A_SECOND_ADDRESS = "an IPv6 address, such as fd00:1:1::2, beside an IPv4 address in `address`"
A_PROTOCOL = "tcp, udp, sctp, esp, ah, gre, or a protocol number from 0 to 255"
SHARDS = "a list of the names of shards"
PASSED_OVER_IN_V6 = (0, 43, 44, 51, 60)  # extension headers, AH among them (RFC 8200 §4): a packet is what follows them
POSITIVE_S = "seconds, a number from 0.01 to 3600"
STATUSES = "for http: a status from 100 to 599, a range such as 200-399, or a list of these"
FLAP_CHANGES = "changes of verdict within flap_window_s, a whole number from 2 to 100, or 0: never held down"
DNS_NAME = r"^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?$"

NEEDED = object()
KEYS_OF_TYPE: Mapping[str, Mapping[str, object]] = {  # type of health check: its keys, with their defaults
    "ping": {},
    "tcp": {"port": NEEDED},
    "http": {"port": NEEDED, "path": "/", "host": None, "status": ("200-399",), "body": None},
    "udp": {"port": NEEDED, "send": NEEDED, "expect": None},
    "dns": {"port": 53, "query": NEEDED, "record": "A"},
    "script": {"command": NEEDED},
}


def _address(value: object) -> object:
    """Reads text only: `ip_address` would take the number 1 for 0.0.0.1."""
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    if not isinstance(value, str) or "%" in value:
        raise ValueError(AN_ADDRESS)
    try:
        return ip_address(value)
    except ValueError:
        raise ValueError(AN_ADDRESS) from None


def _statuses(value: object) -> object:
    """Returns a status, a range or a list of these as a tuple; None stays, for a check that has no use for it."""
    if value is None:
        return None
    listed = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not listed or not all(map(_is_status, listed)):
        raise ValueError(STATUSES)
    return listed


def _is_status(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return 100 <= value <= 599
    found = re.fullmatch(r"([1-5][0-9]{2})-([1-5][0-9]{2})", value) if isinstance(value, str) else None
    return found is not None and found[1] <= found[2]


def _hex_is_hex(text: str) -> str:
    if not text.startswith(HEX):
        return text
    try:
        bytes.fromhex(text.removeprefix(HEX))
    except ValueError:
        raise ValueError(f"behind {HEX} hex digits in pairs, as in {HEX}00ff") from None
    return text


def _address6(value: object) -> object:
    try:
        parsed = _address(value)
    except ValueError:
        parsed = None
    if not isinstance(parsed, IPv6Address):
        raise ValueError(A_SECOND_ADDRESS)
    return parsed


def _vip_address(value: object) -> object:
    """Reads an address; a prefix that has not been taken apart yet has bits set behind it, or is none."""
    with contextlib.suppress(ValueError):
        return _address(value)
    prefix = _interface(value)
    if prefix is None:
        raise ValueError(A_VIP_ADDRESS)
    raise ValueError(f"a prefix without bits set behind it: {prefix.network}, or one address: {prefix.ip}")


def _interface(value: object) -> IPv4Interface | IPv6Interface | None:
    """Returns what a text such as 192.0.2.0/28 says, None if it is no address with a length."""
    if isinstance(value, str) and re.fullmatch(r"[^/%]+/[0-9]{1,3}", value):
        with contextlib.suppress(ValueError):
            return ip_interface(value)
    return None


def _protocol(value: object) -> object:
    """Reads a name or a number, in one go: a union would say of either what is wrong with it."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255
    if is_number or (isinstance(value, str) and value in PROTOCOL_NUMBERS):
        return value
    raise ValueError(A_PROTOCOL)


def _null_is_0(value: object) -> object:
    return 0 if value is None else value


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
IP = Annotated[IPv4Address | IPv6Address, BeforeValidator(_address)]
IP6 = Annotated[IPv6Address, BeforeValidator(_address6)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Seconds = Annotated[float, Field(strict=True, ge=0.01, le=3600)]
Times = Annotated[int, Field(strict=True, ge=1, le=100)]
ShortText = Annotated[str, Field(min_length=1, max_length=1024)]


class _Object(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class MaglevMachine(_Object):
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


class Endpoint(_Object):
    """One service endpoint in a pool; weight 0 gives it no new connections."""

    address: IP = Field(description=AN_ADDRESS)
    weight: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = Field(
        default=1.0, description="a finite number, 0 or more"
    )


class HealthCheck(_Object):
    """How the endpoints of a pool are probed, and how many results in a row change the verdict."""

    type: Literal["ping", "tcp", "http", "udp", "dns", "script"] = Field(
        description="ping, tcp, http, udp, dns or script"
    )
    through: Literal["address", "vip"] = Field(
        default="address",
        description="address (the endpoint's own), or vip (in GRE and to the VIP, as clients' packets come)",
    )
    port: Port | None = Field(default=None, description="a whole number from 1 to 65535")
    path: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = Field(
        default=None, description="for http: a text that starts with / and has no blanks, such as /healthz"
    )
    host: Annotated[str, Field(pattern=r"^[!-~]{1,255}$")] | None = Field(
        default=None, description="for http: the Host header, a text without blanks, such as www.example.com"
    )
    status: Annotated[tuple[int | str, ...], BeforeValidator(_statuses)] | None = Field(
        default=None, description=STATUSES
    )
    body: ShortText | None = Field(
        default=None, description="for http: a text of 1 to 1024 characters that must occur in the answer's body"
    )
    send: Annotated[ShortText, AfterValidator(_hex_is_hex)] | None = Field(
        default=None,
        description="for udp: what is sent, 1 to 1024 characters of text, or hex digits behind hex:, as hex:00ff",
    )
    expect: Annotated[ShortText, AfterValidator(_hex_is_hex)] | None = Field(
        default=None,
        description="for udp: what must occur in the answer, 1 to 1024 characters of text, or hex digits behind hex:",
    )
    query: Annotated[str, Field(pattern=DNS_NAME, max_length=253)] | None = Field(
        default=None, description="for dns: the name that is asked for, such as www.example.com"
    )
    record: Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"] | None = Field(
        default=None, description="for dns: the type of record, A, AAAA, CNAME, MX, NS, PTR, SOA, SRV or TXT"
    )
    command: tuple[Annotated[str, Field(pattern=r"^[^\x00]+$")], ...] | None = Field(
        default=None,
        description="for script: a list of words, the first an absolute path, such as [/usr/local/bin/check, -v]",
    )
    interval_s: Seconds = Field(default=1.0, description=POSITIVE_S)
    timeout_s: Seconds = Field(default=0.5, description=POSITIVE_S + ", at most interval_s")
    rise: Times = Field(default=2, description="passes in a row, a whole number from 1 to 100")
    fall: Times = Field(default=2, description="failures in a row, a whole number from 1 to 100")
    flap_changes: Annotated[int, Field(strict=True, ge=0, le=100)] = Field(default=10, description=FLAP_CHANGES)
    flap_window_s: Seconds = Field(default=60.0, description=POSITIVE_S)
    hold_down_s: Seconds = Field(default=60.0, description=POSITIVE_S)

    @field_validator("through")
    @classmethod
    def _through_suits_type(cls, through: str, info: ValidationInfo) -> str:
        if through == "vip" and info.data.get("type") == "script":
            raise ValueError("address: where a script's packets go is its own business")
        return through

    @field_validator("port", "path", "host", "status", "body", "send", "expect", "query", "record", "command")
    @classmethod
    def _suits_type(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses what a type has no use for, and fills in or asks for what it needs."""
        kind, key = info.data.get("type"), str(info.field_name)
        if kind is None:
            return value
        keys = KEYS_OF_TYPE[kind]
        if key not in keys:
            if value is not None:
                raise ValueError(f"no {key} in a check of type {kind}")
            return None
        if value is None and keys[key] is NEEDED:
            raise ValueError(f"a {key}, which a check of type {kind} needs: {cls.model_fields[key].description}")
        return keys[key] if value is None else value

    @field_validator("command")
    @classmethod
    def _command_is_found(cls, command: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if command is not None and not (command and command[0].startswith("/")):
            raise ValueError(str(cls.model_fields["command"].description))
        return command

    @field_validator("timeout_s")
    @classmethod
    def _timeout_fits_interval(cls, timeout_s: float, info: ValidationInfo) -> float:
        interval_s = info.data.get("interval_s", timeout_s)
        if timeout_s > interval_s:
            raise ValueError(f"at most the interval, {interval_s:g} s, so that probes do not overlap")
        return timeout_s

    @field_validator("flap_changes")
    @classmethod
    def _one_change_is_no_flapping(cls, changes: int) -> int:
        if changes == 1:
            raise ValueError(FLAP_CHANGES)
        return changes


class Pool(_Object):
    """Endpoints, or other pools by name, or both (§2.2)."""

    endpoints: tuple[Endpoint, ...] = Field(default=(), description="a list of endpoints")
    pools: tuple[Name, ...] = Field(default=(), description="a list of the names of pools")
    health_check: HealthCheck | None = Field(default=None, description="a health check, such as {type: tcp, port: 80}")


class Vip(_Object):
    """A virtual address or prefix, protocol and port that the Maglevs of a shard serve from a pool (§4.2).

    While it moves to another shard, both serve it: `maglev.moving` says in which order.
    """

    name: Name = Field(description=A_NAME)
    address: Annotated[IPv4Address | IPv6Address, BeforeValidator(_vip_address)] = Field(description=A_VIP_ADDRESS)
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
    affinity: Literal["connection", "client"] = Field(default="connection", description="connection or client")
    idle_timeout_s: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="seconds, a number above 0, at most the connection table's idle_timeout_s"
    )
    new_flows_per_s: Annotated[float, Field(strict=True, gt=0, le=1e9)] | None = Field(
        default=None, description="new flows a second that each Maglev takes, a number above 0, at most 1000000000"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        """Gives protocols without ports the port 0, and takes an address with a length, such as 192.0.2.0/28, apart."""
        if not isinstance(value, dict):
            return value
        if value.get("protocol") not in (None, *WITH_PORTS):
            value = {"port": 0} | value
        prefix = _interface(value.get("address"))
        if prefix is None or prefix.ip != prefix.network.network_address:
            return value
        if value.get("prefix_length") is not None:
            raise ValueError("a length after the address or a prefix_length, not both")
        return value | {"address": prefix.ip, "prefix_length": prefix.network.prefixlen}

    @field_validator("prefix_length")
    @classmethod
    def _length_suits_address(cls, length: int | None, info: ValidationInfo) -> int | None:
        """Returns None for the length of a whole address: there is one way to say each thing."""
        address = info.data.get("address")
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
        if isinstance(info.data.get("address"), IPv6Address) and number in PASSED_OVER_IN_V6:
            raise ValueError("a protocol that is no extension header of IPv6: Maglev looks at what follows those")
        return protocol

    @field_validator("port")
    @classmethod
    def _port_suits_protocol(cls, port: int, info: ValidationInfo) -> int:
        protocol = info.data.get("protocol")
        if port != 0 and protocol not in (None, *WITH_PORTS):
            raise ValueError(f"0, or no port at all: Maglev looks for ports in tcp and udp only, not in {protocol}")
        return port

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
        """All addresses of the VIP."""
        length = self.address.max_prefixlen if self.prefix_length is None else self.prefix_length
        return ip_network((self.address, length))

    @property
    def shown(self) -> str:
        """The VIP's address as a person writes it: 192.0.2.1, or 192.0.2.0/28."""
        return str(self.address) if self.prefix_length is None else str(self.network)


class ConnectionTable(_Object):
    """The forwarder's connection table (§3.3): how many connections, and when one is forgotten."""

    enabled: bool = Field(default=True, strict=True, description="true or false")
    capacity: int = Field(
        default=1 << 20,
        strict=True,
        ge=1,
        le=MOST_CONNECTIONS,
        description=f"a whole number from 1 to {MOST_CONNECTIONS}",
    )
    idle_timeout_s: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = Field(
        default=60.0, description="seconds, a finite number above 0"
    )
    huge_pages: bool = Field(default=False, strict=True, description="true or false")


class Fragments(_Object):
    """How fragments are brought together at the Maglev that owns their packet (§4.3)."""

    packets: Annotated[int, Field(strict=True, ge=1, le=1 << 20)] = Field(
        default=4096, description=f"packets whose fragments are followed, a whole number from 1 to {1 << 20}"
    )
    held_fragments: Annotated[int, Field(strict=True, ge=0, le=1 << 20)] = Field(
        default=1024, description=f"fragments that wait for a first one, a whole number from 0 to {1 << 20}"
    )
    held_bytes: Annotated[int, Field(strict=True, ge=0, le=1 << 30)] = Field(
        default=4 << 20, description=f"bytes of such fragments, a whole number from 0 to {1 << 30}"
    )
    timeout_s: Seconds = Field(default=2.0, description=POSITIVE_S)
    health_check: HealthCheck = Field(
        default=HealthCheck(type="ping", through="vip", timeout_s=1.0, fall=3, flap_changes=0),
        description="how Maglevs see whether others live: a ping, such as {type: ping, through: vip, interval_s: 1}",
    )

    @field_validator("health_check")
    @classmethod
    def _maglevs_answer_pings(cls, check: HealthCheck) -> HealthCheck:
        if check.through == "vip" and check.type != "ping":
            raise ValueError("a health check of type ping, or with through: address: that is all a forwarder answers")
        return check


class Metrics(_Object):
    """Where Maglevs and endpoints serve their metrics over HTTP: on their own addresses, `/metrics` (§4.4)."""

    port: Annotated[int, Field(strict=True, ge=0, le=65535), BeforeValidator(_null_is_0)] = Field(
        default=9400, description="a whole number from 1 to 65535, or 0 or null for no metrics"
    )


class ForwarderOptions(_Object):
    """How a forwarder does its work; the same on all Maglevs, or they would choose differently."""

    engine: Literal["auto", "xdp", "ring", "socket"] = Field(default="auto", description="auto, xdp, ring or socket")
    table_size: int = Field(
        default=65537,
        strict=True,
        ge=2,
        le=LARGEST_TABLE,
        description=f"a prime from 2 to {LARGEST_TABLE}, such as 65537",
    )
    hash: Literal["maglev", "modulo", "ring", "rendezvous"] = Field(
        default="maglev", description="maglev, modulo, ring or rendezvous"
    )
    connection_table: ConnectionTable = Field(
        default=ConnectionTable(), description="a connection table, such as {capacity: 1048576, idle_timeout_s: 60}"
    )
    threads: Annotated[int, Field(strict=True, ge=1, le=MOST_THREADS)] = Field(
        default=1, description=f"packet threads, a whole number from 1 to {MOST_THREADS}"
    )
    busy_poll: bool = Field(default=False, strict=True, description="true or false")
    fragments: Fragments = Field(
        default=Fragments(), description="a fragment table, such as {packets: 4096, timeout_s: 2}"
    )
    icmp_errors_per_s: Annotated[float, Field(strict=True, ge=0, le=1e6)] = Field(
        default=1000.0, description="answers a second that a packet is too big, a number from 0 to 1000000"
    )
    trace_reports_per_s: Annotated[float, Field(strict=True, ge=0, le=1000)] = Field(
        default=10.0, description="reports a second of tracer packets, a number from 0 to 1000"
    )

    @field_validator("table_size")
    @classmethod
    def _size_is_prime(cls, size: int) -> int:
        if not is_prime(size):
            raise ValueError(f"a prime; the nearest are {' and '.join(map(str, nearest_primes(size)))}")
        return size


class Member(NamedTuple):
    """An endpoint as one flattened pool sees it: healthy when it passes all of `health_checks` (none: always)."""

    address: Address
    weight: float
    health_checks: tuple[HealthCheck, ...] = ()


class Config(_Object):
    """A whole configuration. `config.parse` and `config.load` make one that keeps all rules."""

    shard: Name = "default"
    maglevs: tuple[MaglevMachine, ...] = ()
    pools: Mapping[str, Pool] = {}
    vips: tuple[Vip, ...] = ()
    forwarder: ForwarderOptions = ForwarderOptions()
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

    def allies(self, shard: str) -> tuple[str, ...]:
        """Returns the shards that serve a VIP together with one, itself first: usually that is alone."""
        shared = (vip.served_by for vip in self.vips if shard in vip.served_by)
        return tuple(dict.fromkeys((shard, *(other for shards in shared for other in shards))))

    def vips_of(self, shard: str) -> tuple[Vip, ...]:
        """Returns the VIPs that a shard's Maglevs forward, sorted by address, protocol and port."""
        mine = (vip for vip in self.vips if shard in vip.served_by)
        return tuple(
            sorted(
                mine, key=lambda vip: (pack_address(vip.address), vip.network.prefixlen, vip.protocol_number, vip.port)
            )
        )

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
        flat: dict[str, _Listed] = {}
        for name in TopologicalSorter({name: pool.pools for name, pool in self.pools.items()}).static_order():
            flat[name] = _flatten(self.pools[name], flat)
        return {name: _members(listed) for name, listed in flat.items()}


_Checks = frozenset[HealthCheck | None]  # None: no pool has said yet how to check this listing
_Listed = dict[Address, tuple[float, _Checks]]


def reachable(pools: Mapping[str, Pool], start: str) -> set[str]:
    """Returns the names of a pool and of all pools nested in it, also where they are unknown or form a cycle."""
    found, todo = {start}, [start]
    while todo:
        pool = pools.get(todo.pop())
        new = set(pool.pools) - found if pool else set()
        found |= new
        todo += new
    return found


def _flatten(pool: Pool, flat: Mapping[str, _Listed]) -> _Listed:
    listed: _Listed = {endpoint.address: (endpoint.weight, frozenset([None])) for endpoint in pool.endpoints}
    for name in pool.pools:
        for address, (weight, checks) in flat[name].items():
            old_weight, old_checks = listed.get(address, (0.0, frozenset()))
            listed[address] = (old_weight + weight, old_checks | checks)
    if pool.health_check is None:
        return listed
    return {address: (weight, _filled(checks, pool.health_check)) for address, (weight, checks) in listed.items()}


def _filled(checks: _Checks, check: HealthCheck) -> _Checks:
    return checks - {None} | {check} if None in checks else checks


def _members(listed: _Listed) -> tuple[Member, ...]:
    found = sorted(listed.items(), key=lambda item: pack_address(item[0]))
    return tuple(Member(address, weight, _in_order(checks)) for address, (weight, checks) in found)


def _in_order(checks: _Checks) -> tuple[HealthCheck, ...]:
    return tuple(sorted((check for check in checks if check), key=repr))
