"""The simplest engine: one receive, one decision, one send, a packet at a time.

Read this one first. A packet socket (packet(7)) sees every IPv4 frame that arrives on an interface before the
kernel's own stack does, and sends whole frames. The kernel then gets the same frame too; it says nothing about it
as long as it does not forward (`ip_forward=0`) and the VIP is not an address of its own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from time import monotonic

from ..errors import PlatformError, Reason
from ..forwarding import Decision, Forwarder, Statistics

ETH_P_IP = 0x0800
SOL_PACKET = 263  # linux/socket.h
PACKET_IGNORE_OUTGOING = 23  # linux/if_packet.h: do not show us what we send
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
RECEIVE_BUFFER_BYTES = 32 << 20
MAX_FRAME_BYTES = 65536

NextHop = Callable[[bytes], bytes | None]  # endpoint (16 bytes) -> Ethernet header (14 bytes)


def open_socket(interface: str) -> socket.socket:
    """Returns a packet socket bound to an interface; PlatformError without the right or the interface."""
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise PlatformError("a packet socket needs CAP_NET_RAW: run the forwarder as root") from None
    packets.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    with contextlib.suppress(PermissionError):  # the default buffer only loses more in a burst
        packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    try:
        packets.bind((interface, ETH_P_IP))
    except OSError as error:
        raise PlatformError(f"cannot receive on interface {interface}: {error.strerror}") from None
    return packets


def run(packets: socket.socket, forwarder: Forwarder, next_hop: NextHop, statistics: Statistics) -> None:
    """Forwards packets until the socket is closed or a signal handler raises."""
    receive, decide, count = packets.recv, forwarder.decide, statistics.count
    while True:
        try:
            frame = receive(MAX_FRAME_BYTES)
        except OSError as error:
            if error.errno == errno.ENETDOWN:  # said once when the interface goes down; it may come up again
                continue
            raise
        decision = decide(frame, monotonic())
        if decision.reason is None:
            decision = _send(packets, decision, next_hop(decision.endpoint))
        count(decision)


def _send(packets: socket.socket, decision: Decision, ethernet: bytes | None) -> Decision:
    """Sends what was decided; returns the decision, or the reason why it could not be carried out."""
    if ethernet is None:
        return Decision(reason=Reason.NO_NEXT_HOP)
    try:
        packets.send(ethernet + decision.packet)
    except OSError as error:
        return Decision(reason=Reason.TOO_BIG if error.errno == errno.EMSGSIZE else Reason.SEND_FAILED)
    return decision
