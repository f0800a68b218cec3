"""The simplest engine: one receive, one decision, one send, a packet at a time.

Read this one first. A packet socket (packet(7)) sees every frame that arrives on an interface before the
kernel's own stack does, and sends whole frames. The kernel then gets the same frame too; it says nothing about it
as long as it does not forward (`ip_forward=0`) and the VIP is not an address of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from ..errors import PlatformError, Reason
from ..forwarding import Decision, Forwarder, Statistics
from ..gre import ETHERTYPES
from ..vips import VipMap
from .contract import Engine, Options, Table

ETH_P_ALL = 0x0003
SOL_PACKET = 263  # linux/socket.h
PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING = 20, 23  # linux/if_packet.h: the latter: do not show us what we send
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32  # asm-generic/socket.h
SIOCGIFMTU = 0x8921  # linux/sockios.h
BUFFER_BYTES = 32 << 20
MAX_FRAME_BYTES = 65536
LOOK_UP_EVERY = struct.pack("ll", 0, 100_000)  # timeval: how long a receive may keep us from seeing that we should stop

NextHop = Callable[[bytes], bytes | None]  # endpoint (16 bytes) -> Ethernet header (14 bytes)


def open_socket(interface: str) -> socket.socket:
    """Returns a packet socket bound to an interface; PlatformError without the right or the interface."""
    packets = packet_socket()
    packets.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    with contextlib.suppress(PermissionError):  # the default buffer only loses more in a burst
        packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    bind(packets, interface, ETH_P_ALL)
    return packets


def open_sender(interface: str) -> socket.socket:
    """Returns a packet socket that only sends, past the queueing discipline; PlatformError as `open_socket`."""
    packets = packet_socket()
    packets.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    with contextlib.suppress(PermissionError):
        packets.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
    bind(packets, interface, 0)
    return packets


def packet_socket() -> socket.socket:
    """Returns a packet socket that receives nothing yet; PlatformError without the right to have one."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise PlatformError("a packet socket needs CAP_NET_RAW: run the forwarder as root") from None


def bind(packets: socket.socket, interface: str, ether_type: int) -> None:
    """Lets a packet socket receive and send on an interface; PlatformError if there is none of that name."""
    try:
        packets.bind((interface, ether_type))
    except OSError as error:
        packets.close()
        raise PlatformError(f"cannot receive on interface {interface}: {error.strerror}") from None


def mtu_of(interface: str) -> int:
    """Returns the largest IP packet that an interface sends, in bytes; PlatformError if there is no such interface."""
    request = struct.pack("16si12x", interface.encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            return int(struct.unpack("16si12x", fcntl.ioctl(any_socket, SIOCGIFMTU, request))[1])
        except OSError as error:
            raise PlatformError(f"cannot use interface {interface}: {error.strerror}") from None


def run(
    packets: socket.socket,
    forwarder: Forwarder,
    next_hop: NextHop,
    statistics: Statistics,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Forwards packets while `goes_on()`, asked when none come for a while, or a signal handler raises."""
    receive, decide, count = packets.recv, forwarder.decide, statistics.count
    while True:
        try:
            frame = receive(MAX_FRAME_BYTES)
        except BlockingIOError:
            if not goes_on():
                return
            continue
        except OSError as error:
            if error.errno == errno.ENETDOWN:  # said once when the interface goes down; it may come up again
                continue
            raise
        carry_out(packets, decide(frame, monotonic()), frame, next_hop, count)


def carry_out(
    packets: socket.socket,
    decision: Decision,
    frame: bytes,
    next_hop: NextHop,
    count: Callable[[Decision], None],
) -> None:
    """Sends all that was decided about a frame, and has it counted."""
    for each in decision.all():
        count(send(packets, each, next_hop(each.endpoint)) if each.reason is None else each)
        if each.answer:
            with contextlib.suppress(OSError):  # an answer is a courtesy
                packets.send(way_back(frame, each.answer) + each.answer)


def way_back(frame: bytes, packet: bytes) -> bytes:
    """Returns the Ethernet header (14 bytes) that takes an IP packet to where a frame came from."""
    return frame[6:12] + frame[0:6] + ETHERTYPES[packet[0] >> 4].to_bytes(2, "big")


def send(packets: socket.socket, decision: Decision, ethernet: bytes | None) -> Decision:
    """Sends what was decided; returns the decision, or the reason why it could not be carried out."""
    if ethernet is None:
        return Decision(reason=Reason.NO_NEXT_HOP)
    try:
        packets.send(ethernet + decision.packet)
    except OSError as error:
        return Decision(reason=Reason.TOO_BIG if error.errno == errno.EMSGSIZE else Reason.SEND_FAILED)
    return decision


class SocketEngine(Engine):
    """The loop above, as an engine like the others."""

    name = "socket"

    def __init__(self, options: Options) -> None:
        self._packets = open_socket(options.interface)
        self._packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, LOOK_UP_EVERY)
        self._connections = options.table()
        self._interface = options.interface
        self._forwarder = options.reference(self._connections)
        self._next_hops: Mapping[bytes, bytes] = {}
        self._statistics = Statistics()
        self._stopping = False
        self._looks = 0  # that found no packet

    def adopt(self, vips: VipMap) -> None:
        self._forwarder.vips = vips

    def follow(self, next_hops: Mapping[bytes, bytes]) -> None:
        self._forwarder.mtu_bytes = mtu_of(self._interface)
        self._next_hops = next_hops

    def run(self) -> None:
        def next_hop(endpoint: bytes) -> bytes | None:
            return self._next_hops.get(endpoint)

        run(self._packets, self._forwarder, next_hop, self._statistics, self._goes_on)

    def _goes_on(self) -> bool:
        self._looks += 1
        return not self._stopping

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self._packets.close()

    def statistics(self) -> Statistics:
        found = Statistics()
        found.add(self._statistics, self._forwarder.fragments.expired(monotonic()))
        return found

    @property
    def beats(self) -> Sequence[int]:
        counted = self._statistics
        kinds = (counted.forwarded, counted.redirected, counted.reasons)
        return [self._looks + sum(counts.copy().total() for counts in kinds)]  # copied: the other thread goes on

    @property
    def tables(self) -> Sequence[Table]:
        return [self._connections]
