"""Exercise 7: the forwarder, from a frame that comes to one that goes out. Your code; `maglab check 7` judges it.

The class is that of `maglev.forwarding`, the functions are those of `maglev.engine.socket`, with the same names and
arguments, so that a lab can run with yours in their place. Addresses of machines are 16 bytes each; `now` is in
monotonic seconds. `NextHop` takes an endpoint to the Ethernet header (14 bytes) that leads there, or to None;
`way_back(frame, packet)` returns the one that leads to the sender of a frame.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from time import monotonic

from maglev.engine.socket import MAX_FRAME_BYTES, NextHop, way_back
from maglev.errors import Discard, Reason
from maglev.flow import GRE, selection_hash
from maglev.forwarding import Decision, Statistics
from maglev.forwarding import Forwarder as GivenForwarder
from maglev.gre import LARGEST_OVERHEAD_BYTES, Tunnel  # Tunnel.encapsulate(packet, flow_hash) is exercise 4's
from maglev.icmp import is_error
from maglev.packets import Packet, flow_of, parse  # exercise 4's
from maglev.trace import read as reads_trace_me
from maglev.vips import service_at  # service_at(ports, protocol, port): the VIP, or None


class Forwarder(GivenForwarder):
    """What decides on packets."""

    def decide(self, frame: bytes, now: float) -> Decision:
        """Returns what to do with an Ethernet frame; never raises, whatever the frame holds.

        A packet to a VIP: Decision(packet, endpoint, vip), the packet in GRE, the endpoint's address, the VIP's name.
        Anything else: Decision(reason=…), NOT_VIP for an address that is none, NO_VIP_PORT for a port that no VIP has,
        or whatever a `Discard` says that was raised on the way. Of packets that are rare (`is_rare`) let
        `super().decide(frame, now)` decide.

        `self.vips.at(address)` returns the ports of a VIP, or None. `self.choose(flow, selects, service, now)` is
        exercise 6's: it returns the endpoint, or raises `Discard`; `selects` is true for a packet that opens a
        connection.
        """
        raise NotImplementedError("step 1: parse, find the VIP, choose an endpoint, encapsulate")

    def is_rare(self, packet: Packet) -> bool:
        """Says whether a packet takes another way than the one that you write; given.

        Fragments (exercise 10), ICMP errors, what other Maglevs send, what asks to be traced, what may not fit.
        """
        return (
            packet.fragment is not None
            or packet.protocol == GRE
            or len(packet.data) > self.mtu_bytes - LARGEST_OVERHEAD_BYTES
            or is_error(packet)
            or reads_trace_me(packet) is not None
        )

    def tunnel_to(self, endpoint: bytes) -> Tunnel:
        """Returns the tunnel from this Maglev to an endpoint, made once; `Discard` if there can be none; given."""
        return self._tunnel(endpoint)


def send(packets: socket.socket, decision: Decision, ethernet: bytes | None) -> Decision:
    """Sends a decision's packet behind an Ethernet header; returns the decision, or one that says why it was not sent.

    NO_NEXT_HOP without a header. If the kernel refuses (OSError): TOO_BIG for `errno.EMSGSIZE`, else SEND_FAILED.
    """
    raise NotImplementedError("step 2: send one packet, or say why that cannot be")


def carry_out(
    packets: socket.socket,
    decision: Decision,
    frame: bytes,
    next_hop: NextHop,
    count: Callable[[Decision], None],
) -> None:
    """Sends all that was decided about a frame, and has each decision counted as it was carried out.

    `decision.all()` yields the decision and those that come with it; of those with a reason nothing is sent. An
    `answer`, unless it is empty, is an IP packet for the sender of the frame: it is sent afterwards, behind
    `way_back(frame, answer)`, whatever the reason, is not counted, and if the kernel refuses it, so be it.
    """
    raise NotImplementedError("step 2: send what was decided, and count")


def run(
    packets: socket.socket,
    forwarder: Forwarder,
    next_hop: NextHop,
    statistics: Statistics,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Forwards packets until `goes_on()` says no; it is asked whenever none has come for a while.

    `packets.recv` waits as long as the socket's own timeout says, then raises BlockingIOError: no reason to leave.
    `OSError` with `errno.ENETDOWN` comes once when the interface goes down, which may come up again. Any other is
    raised: who cannot receive any more must not look alive. `statistics.count(decision)` counts.
    """
    raise NotImplementedError("step 3: receive, decide, carry out, for ever")
