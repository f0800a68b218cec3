"""What forwarders are told of themselves: engine, tables and limits (Maglev §3), and where their metrics are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from maglev.config_checks import HealthCheck
from maglev.config_fields import POSITIVE_S, ConfigObject, Seconds
from maglev.primes import is_prime, nearest_primes
from maglev.shares import DEFAULT_SHARE

LARGEST_TABLE = 1 << 24  # slots: 25 times the largest table in the paper
MOST_CONNECTIONS = 1 << 26
MOST_THREADS = 64


def _null_is_0(value: object) -> object:
    return 0 if value is None else value


class ConnectionTable(ConfigObject):
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
    max_share_per_source: Annotated[float, Field(strict=True, gt=0, le=1)] = Field(
        default=DEFAULT_SHARE,
        description="the share of the entries that one source, an IPv4 address or an IPv6 /64, may have: "
        "a number above 0, at most 1",
    )
    huge_pages: bool = Field(default=False, strict=True, description="true or false")


class Fragments(ConfigObject):
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


class Metrics(ConfigObject):
    """Where Maglevs and endpoints serve their metrics over HTTP: on their own addresses, `/metrics` (§4.4)."""

    port: Annotated[int, Field(strict=True, ge=0, le=65535), BeforeValidator(_null_is_0)] = Field(
        default=9400, description="a whole number from 1 to 65535, or 0 or null for no metrics"
    )


class ForwarderOptions(ConfigObject):
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
