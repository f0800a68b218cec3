"""The twin of `maglev.gre`: what goes before a packet, ready made for every backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..compiled import inlined
from ..flow import by_family, is_v4
from ..gre import FLOW_LABEL, FLOW_LABEL_BITS, GRE_BYTES, OVERHEAD_BYTES, OVERHEAD_V6_BYTES, Tunnel
from ..packets import ETHERNET_BYTES
from .numbering import Numbering
from .words import put16, put64, word64

Array = np.ndarray[Any, Any]

ROW_BYTES = 64  # of a header: Ethernet, outer IP and GRE take 38 over IPv4, 58 over IPv6
HEADER_BYTES, HEADER_V6_BYTES = ETHERNET_BYTES + OVERHEAD_BYTES, ETHERNET_BYTES + OVERHEAD_V6_BYTES
FIXED_SUM, HAS_HOP, OVERHEAD = range(3)  # columns of `facts`
OUTER_TOS, OUTER_LENGTH, OUTER_CHECKSUM = ETHERNET_BYTES, ETHERNET_BYTES + 2, ETHERNET_BYTES + 10  # words over IPv4
OUTER_V6_LENGTH = ETHERNET_BYTES + 4
VERSION_AND_LENGTH = 0x4500  # what stands beside TOS in its word
VERSION_6 = 0x6000


class Headers(NamedTuple):
    """The way to every backend, as compiled code takes it; rows are numbers of backends."""

    rows: Array  # uint8 (backends x 64,)
    facts: Array  # int64 (backends, 3): the outer header's sum without what differs, whether the next hop is known,
    #               and how many bytes outer IP header and GRE take


@inlined
def encapsulate(
    memory: Array, start: int, headers: Headers, backend: int, tos: int, inner_bytes: int, kind: int
) -> None:
    """Writes a backend's header over IPv4 (38 bytes) at `start`, in front of the packet of `inner_bytes` there.

    `kind` is the packet's EtherType.
    """
    row = backend * ROW_BYTES
    for at in (0, 8, 16, 24, HEADER_BYTES - 8):
        put64(memory, start + at, word64(headers.rows, row + at))
    total_bytes = OVERHEAD_BYTES + inner_bytes
    checksum = (0xFFFF - (headers.facts[backend, FIXED_SUM] + tos + total_bytes) % 0xFFFF) % 0xFFFF
    put16(memory, start + OUTER_TOS, VERSION_AND_LENGTH | tos)
    put16(memory, start + OUTER_LENGTH, total_bytes)
    put16(memory, start + OUTER_CHECKSUM, checksum)
    put16(memory, start + HEADER_BYTES - 2, kind)


@inlined
def encapsulate_v6(
    memory: Array, start: int, headers: Headers, backend: int, tos: int, inner_bytes: int, kind: int, flow_hash: int
) -> None:
    """Writes a backend's header over IPv6 (58 bytes) at `start`; the flow label is made from the flow's hash."""
    row, label = backend * ROW_BYTES, flow_hash & FLOW_LABEL
    for at in (0, 8, 16, 24, 32, 40, 48, HEADER_V6_BYTES - 8):
        put64(memory, start + at, word64(headers.rows, row + at))
    put16(memory, start + ETHERNET_BYTES, VERSION_6 | tos << FLOW_LABEL_BITS - 16 | label >> 16)
    put16(memory, start + ETHERNET_BYTES + 2, label)
    put16(memory, start + OUTER_V6_LENGTH, GRE_BYTES + inner_bytes)
    put16(memory, start + HEADER_V6_BYTES - 2, kind)


class HeaderMaker:
    """Makes the headers of a Maglev whose own addresses are `own` (16 bytes each, one a family)."""

    def __init__(self, own: bytes | Iterable[bytes], numbering: Numbering) -> None:
        self._own, self._numbering = by_family(own), numbering
        self._templates: list[bytes] = []
        self._facts: list[tuple[int, int]] = []

    def headers(self, next_hops: Mapping[bytes, bytes]) -> Headers:
        """Returns headers for all backends that have a number; `next_hops` are Ethernet headers (14 bytes) by backend.

        A backend that is not in `next_hops`, or is of a family that the Maglev has no address of, cannot be reached,
        and packets for it are dropped.
        """
        for backend in self._numbering.backends[len(self._templates) :]:
            self._add(backend)
        hops = [next_hops.get(backend) for backend in self._numbering.backends]
        rows = (
            ((hop or bytes(ETHERNET_BYTES)) + template).ljust(ROW_BYTES, b"\0")
            for hop, template in zip(hops, self._templates, strict=True)
        )
        facts = [
            (fixed_sum, hop is not None and overhead_bytes > 0, overhead_bytes)
            for hop, (fixed_sum, overhead_bytes) in zip(hops, self._facts, strict=True)
        ]
        return Headers(np.frombuffer(b"".join(rows), np.uint8).copy(), np.array(facts, np.int64).reshape(-1, 3))

    def _add(self, backend: bytes) -> None:
        own = self._own.get(is_v4(backend))
        tunnel = Tunnel(own, backend) if own else None
        self._templates.append(tunnel.template if tunnel else b"")
        self._facts.append((tunnel.fixed_sum, tunnel.overhead_bytes) if tunnel else (0, 0))
