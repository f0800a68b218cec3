"""`python -m maglev trace`: sends packets that say "trace me" to a VIP, and listens to what Maglevs report (§4.4).

It runs on a client. A TCP tracer packet is a bare acknowledgement with a payload: it opens nothing, the endpoint
answers with a reset, or on a living connection with an acknowledgement, and the answer shows the way back.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import MaglevError, PlatformError
from .flow import TCP, UDP, Address, pack_address, unpack_address
from .trace import (
    NO_SLOT,
    NOWHERE,
    TRACER_BYTES,
    Chooser,
    Report,
    Tracer,
    pack_tracer,
    parse_report,
    with_checksum,
)

PROTOCOLS = {"tcp": TCP, "udp": UDP}
WAIT_S = 1.0  # for the first report and the answer
QUIET_S = 0.1  # after the last of them: a fragmented packet has several
FRAGMENTED_BYTES = 4000  # of a payload that no link carries in one packet
LARGEST_BYTES = 65536
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT = 10, 23, 0  # linux/in.h, linux/in6.h: the kernel may cut packets
_TCP = struct.Struct("!HHIIBBHHH")
_UDP = struct.Struct("!HHHH")
ACK, RST = 0x10, 0x04


@dataclass(frozen=True)
class Hop:
    """What one Maglev said, as a person reads it; `after_s` is its clock's time since the packet was sent."""

    maglev: str
    vip: str
    flow: str
    chooser: str
    slot: int | None
    target: str | None
    came_from: str | None
    reason: str
    after_s: float  # only where the Maglev's clock is this machine's: between namespaces of one kernel
    reported_after_s: float


@dataclass
class Passage:
    """What became of one tracer packet."""

    number: int
    hops: list[Hop] = field(default_factory=list)
    answer: str | None = None  # what the endpoint sent back
    answered_after_s: float | None = None


@dataclass(frozen=True)
class Trace:
    """What became of some tracer packets of one flow."""

    source: str
    source_port: int
    destination: str
    port: int
    protocol: str
    passages: list[Passage]

    def document(self) -> dict[str, Any]:
        """Returns all of it as plain values, for JSON."""
        return asdict(self)


def run(
    address: Address, port: int, protocol: str, source_port: int | None, count: int, fragmented: bool, as_json: bool
) -> None:
    """Traces packets to a VIP and prints what is reported; MaglevError if nothing is."""
    found = trace(address, port, protocol, source_port, count, fragmented)
    print(json.dumps(found.document(), indent=2) if as_json else "\n".join(in_words(found)))
    if not any(passage.hops for passage in found.passages):
        raise MaglevError(f"no Maglev reported a packet to {address} within {WAIT_S:g} s: is it a VIP?")


def trace(
    address: Address, port: int, protocol: str, source_port: int | None, count: int = 1, fragmented: bool = False
) -> Trace:
    """Sends `count` tracer packets, one after the other has arrived, and returns what became of each.

    PlatformError without the right to send them, or without a way to the address.
    """
    with Client(address, port, protocol, source_port) as client:
        passages = [client.pass_through(fragmented) for _ in range(count)]
        source = str(unpack_address(client.source))
        return Trace(source, client.source_port, str(address), port, protocol, passages)


class Client:
    """The sockets of a tracer: a raw one that sends packets and sees answers, and one for reports."""

    def __init__(self, address: Address, port: int, protocol: str, source_port: int | None) -> None:
        self._family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._address, self._port, self._protocol = str(address), port, PROTOCOLS[protocol]
        self._target = pack_address(address)
        self._number = random.getrandbits(32)
        self._undo = contextlib.ExitStack()
        try:
            own = _own_address(self._family, self._address)
            self.source = pack_address(own)
            self._raw = self._undo.enter_context(socket.socket(self._family, socket.SOCK_RAW, self._protocol))
            self._raw.bind((own, 0))
            self._let_kernel_cut()
            self._reports = self._open(socket.SOCK_DGRAM, own, 0)
            kind = socket.SOCK_STREAM if self._protocol == TCP else socket.SOCK_DGRAM
            keeper = None if source_port else self._open(kind, own, 0)  # that nobody else takes the port meanwhile
        except PermissionError:
            self._undo.close()
            raise PlatformError("tracer packets need CAP_NET_RAW: run the tracer as root") from None
        except OSError as error:
            self._undo.close()
            raise PlatformError(f"cannot send to {address}: {error.strerror or error}") from None
        self.source_port: int = source_port if keeper is None else keeper.getsockname()[1]  # type: ignore[assignment]

    def _let_kernel_cut(self) -> None:
        if self._family == socket.AF_INET:
            self._raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        else:
            self._raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)

    def _open(self, kind: int, own: str, port: int) -> socket.socket:
        opened = self._undo.enter_context(socket.socket(self._family, kind))
        opened.bind((own, port))
        return opened

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def pass_through(self, fragmented: bool) -> Passage:
        """Sends one tracer packet, and returns what is heard of it."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        passage, sent = Passage(self._number), time.monotonic()
        self._send(self._payload(fragmented))
        for heard in self._heard(sent, passage):
            if isinstance(heard, Report):
                passage.hops.append(_hop(heard, sent))
            elif passage.answer is None:
                passage.answer, passage.answered_after_s = heard, time.monotonic() - sent
        passage.hops.sort(key=lambda hop: hop.after_s)
        return passage

    def _payload(self, fragmented: bool) -> bytes:
        port = self._reports.getsockname()[1]
        payload = pack_tracer(Tracer(self.source, port, self._number))
        return payload + bytes(FRAGMENTED_BYTES - TRACER_BYTES) * fragmented

    def _send(self, payload: bytes) -> None:
        if self._protocol == TCP:
            number = random.getrandbits(32)
            header, at = _TCP.pack(self.source_port, self._port, number, number, 5 << 4, ACK, 1024, 0, 0), 16
        else:
            header, at = _UDP.pack(self.source_port, self._port, _UDP.size + len(payload), 0), 6
        body = with_checksum(self.source, self._target, self._protocol, header + payload, at)
        try:
            self._raw.sendto(body, (self._address, 0))
        except OSError as error:
            raise PlatformError(f"cannot send to {self._address}: {error.strerror or error}") from None

    def _heard(self, sent: float, passage: Passage) -> Iterator[Report | str]:
        """Yields reports and answers until both have come and it is quiet, or none comes in time."""
        deadline = sent + WAIT_S
        while (left := deadline - time.monotonic()) > 0:
            readable = select.select([self._reports, self._raw], [], [], left)[0]
            if self._reports in readable:
                report = parse_report(self._reports.recv(LARGEST_BYTES))
                if report is not None and report.number == self._number:
                    yield report
            if self._raw in readable:
                packet, (sender, *_) = self._raw.recvfrom(LARGEST_BYTES)
                answer = self._answer_in(packet) if sender == self._address else None
                if answer is not None:
                    yield answer
            if readable and passage.hops and passage.answer:
                deadline = min(sent + WAIT_S, time.monotonic() + QUIET_S)

    def _answer_in(self, packet: bytes) -> str | None:
        """Returns in words what a packet from the VIP is, None if it belongs to another flow."""
        body = packet[(packet[0] & 0x0F) * 4 :] if self._family == socket.AF_INET else packet  # raw(7), RFC 3542 §3
        if len(body) < _UDP.size or struct.unpack_from("!HH", body) != (self._port, self.source_port):
            return None
        if self._protocol == UDP:
            return f"{len(body) - _UDP.size} bytes"
        flags = body[13] if len(body) > 13 else 0
        return "reset" if flags & RST else "acknowledgement"


def _own_address(family: int, address: str) -> str:
    """Returns the address from which this machine sends to another."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing
        own: str = probe.getsockname()[0]
        return own


def _hop(report: Report, sent: float) -> Hop:
    return Hop(
        report.maglev, report.vip, str(report.flow), report.chooser.name.lower().replace("_", " "),
        None if report.slot == NO_SLOT else report.slot, _shown(report.target), _shown(report.came_from),
        report.reason, report.time_us / 1e6 - sent, time.monotonic() - sent,
    )  # fmt: skip


def _shown(address: bytes) -> str | None:
    return None if address == NOWHERE else str(unpack_address(address))


def in_words(found: Trace) -> Iterator[str]:
    """Yields the lines that tell a person what became of tracer packets."""
    protocol = found.protocol
    yield f"{protocol} from {found.source} port {found.source_port} to {found.destination} port {found.port}"
    for place, passage in enumerate(found.passages, 1):
        for hop in passage.hops:
            yield f"{place:3}  {hop.reported_after_s * 1000:7.2f} ms  {sentence(hop)}"
        if passage.answer:
            after_ms = (passage.answered_after_s or 0.0) * 1000
            yield f"{place:3}  {after_ms:7.2f} ms  answered by {found.destination}: {passage.answer}"
        else:
            yield f"{place:3}              not answered"


def sentence(hop: Hop) -> str:
    """Returns what a Maglev did, in words."""
    whence = f", sent on to it by {hop.came_from}" if hop.came_from else ""
    if hop.chooser == Chooser.NOBODY.name.lower():
        return f"{hop.maglev} dropped it: {hop.reason}{whence}"
    if hop.chooser == "fragment owner":
        return f"{hop.maglev} sent the fragment on to {hop.target}, the Maglev that owns its packet"
    slot = "" if hop.slot is None else f", slot {hop.slot}"
    dropped = f", but dropped it: {hop.reason}" if hop.reason else ""
    return f"{hop.maglev} chose {hop.target} for {hop.vip} by its {hop.chooser}{slot}{dropped}{whence}"
