"""What can go wrong, named by whose fault it is.

A user's fault raises a `MaglevError`, whose text is one sentence with the way out. A packet's fault is no error at
all: it is a `Reason`, counted, and the next packet is looked at. Only parsers raise a reason (as `Discard`), and
only `forwarding` catches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class MaglevError(Exception):
    """Base of all errors that a user of this package can cause and can mend."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: where, what was found, what is allowed."""

    file: str
    field: str
    value: object
    allowed: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.value!r} is not allowed; allowed: {self.allowed}"


class ConfigError(MaglevError):
    """A configuration that was refused whole; `problems` names every reason, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class PlatformError(MaglevError):
    """The machine lacks something that was asked for: a right, a device, a kernel feature."""


class Reason(StrEnum):
    """Why a frame was not forwarded. `IGNORED` reasons are other people's traffic; the rest are drops."""

    NOT_IP = "not_ip"
    NOT_VIP = "not_vip"

    FRAME_TOO_SHORT = "frame_too_short"
    BAD_IP_VERSION = "bad_ip_version"
    BAD_IP_HEADER_LENGTH = "bad_ip_header_length"
    BAD_IP_TOTAL_LENGTH = "bad_ip_total_length"
    BAD_IP_CHECKSUM = "bad_ip_checksum"
    TRUNCATED = "truncated"
    BAD_TRANSPORT_HEADER = "bad_transport_header"
    FRAGMENT_TOO_EARLY = "fragment_too_early"  # came before the first of its packet, and there is no room to keep it
    FRAGMENT_EXPIRED = "fragment_expired"  # was kept for the first of its packet, which did not come in time
    NO_VIP_PORT = "no_vip_port"
    ICMP_UNRELATED = "icmp_unrelated"  # an error that does not say which flow it is about
    RATE_LIMITED = "rate_limited"  # a new flow beyond what its VIP takes
    NO_BACKEND = "no_backend"
    NO_NEXT_HOP = "no_next_hop"
    TOO_BIG = "too_big"
    SEND_FAILED = "send_failed"
    OVERLOAD = "overload"  # more rare packets than the reference path can take from the fast one

    BAD_GRE_HEADER = "bad_gre_header"
    NOT_FROM_MAGLEV = "not_from_maglev"

    HELLO = "hello"  # another Maglev asked whether this one is alive, and was answered
    HELD = "held"  # a fragment that waits for the first of its packet: it will be counted again


IGNORED = frozenset({Reason.NOT_IP, Reason.NOT_VIP})
NO_DROPS = IGNORED | {Reason.HELD, Reason.HELLO}


class Discard(Exception):
    """Raised by packet parsers to say why a frame goes no further."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason
