"""How the endpoints of a pool are probed (Maglev §2.2): the types of health checks, and what each of them needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from maglev.config_fields import POSITIVE_S, ConfigObject, Port, Seconds, ShortText, Times

HEX = "hex:"  # before the digits, where a text of a health check is meant in hex
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


class HealthCheck(ConfigObject):
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
