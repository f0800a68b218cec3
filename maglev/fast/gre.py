"""The twin of `maglev.gre`: what goes before a packet, ready made for every backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..compiled import inlined
from ..gre import OVERHEAD_BYTES, Tunnel
from ..packets import ETHERNET_BYTES
from .numbering import Numbering
from .words import put16, put64, word64

Array = np.ndarray[Any, Any]

ROW_BYTES = 64  # of a header: Ethernet, outer IP and GRE take 38
HEADER_BYTES = ETHERNET_BYTES + OVERHEAD_BYTES
FIXED_SUM, HAS_HOP = range(2)  # columns of `facts`
OUTER_TOS, OUTER_LENGTH, OUTER_CHECKSUM = ETHERNET_BYTES, ETHERNET_BYTES + 2, ETHERNET_BYTES + 10  # words in a header
VERSION_AND_LENGTH = 0x4500  # what stands beside TOS in its word


class Headers(NamedTuple):
    """The way to every backend, as compiled code takes it; rows are numbers of backends."""

    rows: Array  # uint8 (backends x 64,)
    facts: Array  # int64 (backends, 2): the outer header's sum without TOS and length, whether the next hop is known


@inlined
def encapsulate(memory: Array, start: int, headers: Headers, backend: int, tos: int, inner_bytes: int) -> None:
    """Writes a backend's header (38 bytes) at `start`, in front of the packet of `inner_bytes` that stands there."""
    row = backend * ROW_BYTES
    for at in (0, 8, 16, 24, HEADER_BYTES - 8):
        put64(memory, start + at, word64(headers.rows, row + at))
    total_bytes = OVERHEAD_BYTES + inner_bytes
    checksum = (0xFFFF - (headers.facts[backend, FIXED_SUM] + tos + total_bytes) % 0xFFFF) % 0xFFFF
    put16(memory, start + OUTER_TOS, VERSION_AND_LENGTH | tos)
    put16(memory, start + OUTER_LENGTH, total_bytes)
    put16(memory, start + OUTER_CHECKSUM, checksum)


class HeaderMaker:
    """Makes the headers of a Maglev whose own address is `maglev` (16 bytes)."""

    def __init__(self, maglev: bytes, numbering: Numbering) -> None:
        self._maglev, self._numbering = maglev, numbering
        self._templates: list[bytes] = []
        self._sums: list[int] = []

    def headers(self, next_hops: Mapping[bytes, bytes]) -> Headers:
        """Returns headers for all backends that have a number; `next_hops` are Ethernet headers (14 bytes) by backend.

        A backend that is not in `next_hops` has no next hop, and packets for it are dropped.
        """
        for backend in self._numbering.backends[len(self._templates) :]:
            tunnel = Tunnel(self._maglev, backend)
            self._templates.append(tunnel.template)
            self._sums.append(tunnel.fixed_sum)
        hops = [next_hops.get(backend) for backend in self._numbering.backends]
        padding = bytes(ROW_BYTES - HEADER_BYTES)
        rows = (
            (hop or bytes(ETHERNET_BYTES)) + template + padding
            for hop, template in zip(hops, self._templates, strict=True)
        )
        facts = np.array([self._sums, [hop is not None for hop in hops]], np.int64).T.copy()
        return Headers(np.frombuffer(b"".join(rows), np.uint8).copy(), facts)
