"""The tunnel that ends at an endpoint: clients' packets, the GRE around them, where it waits, and the device behind."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from scapy.compat import raw
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from lab.classroom import Case
from maglev.engine.decapsulation import Received
from maglev.errors import Discard, Reason
from maglev.flow import pack_address

MAGLEVS = ["10.1.1.2", "10.1.2.2", "fd00:1:1::2"]
VIPS = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
CLIENT = "10.0.1.2"


def packets(case: Case, destination: str) -> list[Layers]:
    """Returns packets from a client to an address: TCP and UDP."""
    is_v6, port = ":" in destination, case.random.randrange(1024, 65536)
    header = IPv6(src="fd00:0:1::2", dst=destination) if is_v6 else IP(src=CLIENT, dst=destination)
    data = Raw(case.random.randbytes(case.random.randrange(1, 60)))
    return [header / TCP(sport=port, dport=80, flags="A") / data, header / UDP(sport=port, dport=7) / data]


def ethertype(inner: Layers) -> int:
    """Returns what GRE calls a packet."""
    return 0x86DD if isinstance(inner, IPv6) else 0x0800


def in_gre(sender: str, inner: bytes) -> Received:
    """Returns a packet in GRE, as a receiver has it from a sender."""
    kind = b"\x86\xdd" if inner[0] >> 4 == 6 else b"\x08\0"
    return Received(pack_address(sender), b"\0\0" + kind + inner)


def a_gate(student: Any) -> Any:
    """Returns the student's gate, for the Maglevs and the VIPs."""
    return student.Gate([ip_address(each) for each in MAGLEVS], [ip_network(vip) for vip in VIPS])


def expect_fate(case: Case, gate: Any, sender: str, inner: Layers, expected: Reason | None) -> None:
    """Gives a gate a packet: it is let in, or kept out for the reason that is expected."""
    case.step(f"{sender} sent, in GRE, {inner.summary()}")
    received = in_gre(sender, raw(inner))
    if expected is not None:
        expect_reason(case, lambda: gate.admit(received), expected)
        return
    try:
        case.expect(gate.admit(received), raw(inner), "the packet that was inside")
    except Discard as discard:
        case.wrong(f"expected the packet to be let in, got Discard({discard.reason.name})")


def expect_reason(case: Case, call: Callable[[], object], expected: Reason) -> None:
    """Expects a call to refuse a packet, for this reason."""
    try:
        got = call()
    except Discard as discard:
        case.expect(discard.reason.name, expected.name, "the reason")
    else:
        case.wrong(f"expected Discard({expected.name}), got {len(got) if isinstance(got, bytes) else got} bytes")


class Waiting:
    """A receiver with packets that wait: its descriptor is ready as long as there are any."""

    def __init__(self, case: Case, packets: Sequence[Received]) -> None:
        self._case, self._packets = case, list(packets)
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        if packets:
            os.write(self._writing, b"!")

    def fileno(self) -> int:
        """Returns the descriptor, for `select`."""
        return self._reading

    def receive(self) -> Received:
        """Returns the next packet; BlockingIOError if there is none."""
        if not self._packets:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reading, 1)
            raise BlockingIOError
        return self._packets.pop(0)


class Device:
    """Stands for a TUN device: it keeps packets apart."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._out.setblocking(False)
        self.descriptor = self._in.fileno()

    def taken(self) -> list[bytes]:
        """Returns what has been written to it."""
        return list(self._taken())

    def _taken(self) -> Iterator[bytes]:
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self._out.recv(1 << 16)

    def close(self) -> None:
        """Has it take nothing any more."""
        self._out.close()
