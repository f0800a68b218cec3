"""What the kernel says of its neighbours over netlink: it resolves link addresses, the switch is told (rtnetlink(7)).

Pure: whoever asks has the socket.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ..netlink import HEADER, NLM_F_DUMP, NLM_F_REQUEST, attributes, messages

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30  # linux/rtnetlink.h
RTMGRP_NEIGH = 0x4
NDA_DST, NDA_LLADDR = 1, 2  # linux/neighbour.h
NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # reachable, stale, delay, probe, permanent
NEIGHBOUR = struct.Struct("=BxxxiHBB")  # ndmsg: family, interface, state, flags, type
SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}


class Heard(NamedTuple):
    """What the kernel says of a neighbour; `mac` is "" when it cannot be reached, or has been forgotten."""

    interface: int
    address: str
    mac: str


def question() -> bytes:
    """Returns the question for all neighbours."""
    return HEADER.pack(
        HEADER.size + NEIGHBOUR.size, RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 1, 0
    ) + NEIGHBOUR.pack(0, 0, 0, 0, 0)  # fmt: skip


def heard(data: bytes) -> Iterator[Heard]:
    """Yields what the kernel's messages say of neighbours of both families."""
    for kind, _, body in messages(data):
        if kind not in (RTM_NEWNEIGH, RTM_DELNEIGH):
            continue
        family, interface, state, _, _ = NEIGHBOUR.unpack_from(body)
        own = dict(attributes(body[NEIGHBOUR.size :]))
        if len(own.get(NDA_DST, b"")) == SIZES.get(family):
            known = kind == RTM_NEWNEIGH and state & NUD_USABLE and NDA_LLADDR in own
            address = socket.inet_ntop(family, own[NDA_DST])
            yield Heard(interface, address, own[NDA_LLADDR].hex(":") if known else "")
