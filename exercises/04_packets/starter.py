"""Exercise 4: from a frame's bytes to a flow, and into GRE. Your code; `maglab check 4` judges it.

The functions are those of `maglev.packets` and `maglev.gre`, with the same names and arguments, so that a lab can run
with yours in their place. IPv6 is given; you write IPv4. All numbers on the wire are big-endian.
"""

from __future__ import annotations

import struct

from maglev.errors import Discard, Reason  # raise Discard(Reason.BAD_IP_CHECKSUM)
from maglev.flow import GRE, TCP, UDP, V4_MAPPED, Flow  # 47, 6, 17; 12 bytes that make an IPv4 address 16 bytes long
from maglev.gre import Tunnel as GivenTunnel
from maglev.packets import ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Packet, parse_v6, three_tuple

LARGEST_PACKET_BYTES = 0xFFFF


def internet_sum(data: bytes) -> int:
    """Returns the one's complement sum of 16-bit words (RFC 1071), 0 to 0xFFFE.

    0xFFFF is another zero: return 0 for it. Over a whole header whose checksum is right, the sum is 0. `data` is an
    even number of bytes.
    """
    raise NotImplementedError("step 1: add the words, and whatever overflows 16 bits once more")


def parse_v4(data: bytes) -> Packet:
    """Returns the IPv4 packet that `data` begins with; `Discard` with the reason if it is malformed.

    `Packet.data` ends where the packet's total length says; Ethernet may have padded what comes after. Reasons, in the
    order in which to look: FRAME_TOO_SHORT (less than 20 bytes), BAD_IP_VERSION, BAD_IP_HEADER_LENGTH (less than 20),
    BAD_IP_TOTAL_LENGTH (less than the header), TRUNCATED (less data than that), BAD_IP_CHECKSUM.
    """
    raise NotImplementedError("step 2: read the fields of an IPv4 header, and refuse one that cannot be right")


def parse(frame: bytes) -> Packet:
    """Returns the IP packet in an Ethernet frame; `Discard` with FRAME_TOO_SHORT, NOT_IP, or what is wrong with it."""
    raise NotImplementedError("step 3: look at the Ethernet header, and hand on what is IPv4 or IPv6")


def flow_of(packet: Packet) -> tuple[Flow, bool]:
    """Returns a packet's flow, and whether it opens a TCP connection.

    TCP and UDP have ports; any other protocol has 0 for both, and so has a fragment that is not the first of its
    packet: `three_tuple(packet)` is its flow. `Discard` with BAD_TRANSPORT_HEADER for a TCP or UDP header that is cut
    short, or that says a length which cannot be; a UDP fragment may say more than is there.
    """
    raise NotImplementedError("step 4: find the ports, and the flags SYN and ACK")


class Tunnel(GivenTunnel):
    """The one-way path from a Maglev to an endpoint. `is_v4` and `overhead_bytes` (24 for IPv4) are given."""

    def __init__(self, source: bytes, destination: bytes) -> None:
        """Takes both ends as 16-byte addresses."""
        super().__init__(source, destination)
        self.source, self.destination = source[12:], destination[12:]  # of IPv4: the 4 bytes that a header has

    def encapsulate(self, inner: bytes, flow_hash: int = 0, redirected: bool = False) -> bytes:
        """Returns the outer packet: an IPv4 header of 20 bytes, a GRE header of 4, and `inner`, unchanged.

        The outer header: DSCP and ECN as `inner` has them, identification 0, Don't Fragment, TTL 64, protocol 47. GRE:
        flags and version 0 (0x0100 if `redirected`), and the EtherType of `inner`. `Discard` with TOO_BIG if a total
        length of 16 bits cannot say how long it is.
        """
        if not self.is_v4:
            return super().encapsulate(inner, flow_hash, redirected)
        raise NotImplementedError("step 5: put an IPv4 header and a GRE header before the packet")


def payload_of(gre: bytes) -> bytes:
    """Returns the IP packet in a GRE packet, which begins with its GRE header; `Discard` with BAD_GRE_HEADER.

    That is for flags or a version other than 0, for an EtherType other than IPv4's and IPv6's, and for a payload that
    has another version than the EtherType says, or less than that version's header (20 or 40 bytes).
    """
    raise NotImplementedError("step 6: take the GRE header off again, if it is one that you understand")
