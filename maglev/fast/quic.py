"""The twin of `maglev.quic`: the endpoint that a packet's connection ID names, found in the hash table of VIPs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiled import inlined
from ..quic import CONFIG_ID_SHIFT, FEWEST_NONCE_BYTES, LENGTH_AT, LONG_HEADER
from .conntrack import ABSENT, ZERO
from .vips import CONFIG_ID, POOL, SERVER_ID_BYTES, Tables, find_server
from .words import word8

Array = np.ndarray[Any, Any]

BYTE, SEVEN_BYTES = np.uint64(8), np.uint64(56)


@inlined
def named_in(memory: Array, tables: Tables, vip: int, datagram: int, size: int) -> int:
    """Returns the number of the backend that a datagram to a VIP names; `ABSENT` if it names none that is usable.

    The datagram begins at `datagram` and has `size` bytes. The VIP has a scheme of connection IDs.
    """
    id_bytes = tables.vips[vip, SERVER_ID_BYTES]
    begins = _begins(memory, datagram, size, 1 + id_bytes + FEWEST_NONCE_BYTES)
    if begins == ABSENT or word8(memory, datagram + begins) >> CONFIG_ID_SHIFT != tables.vips[vip, CONFIG_ID]:
        return ABSENT
    high, low, first = ZERO, ZERO, datagram + begins + 1
    for at in range(first, first + id_bytes):
        high, low = high << BYTE | low >> SEVEN_BYTES, low << BYTE | np.uint64(word8(memory, at))
    return find_server(tables, high, low, tables.vips[vip, POOL], id_bytes)


@inlined
def _begins(memory: Array, datagram: int, size: int, fewest_bytes: int) -> int:
    """Returns after how many bytes of a datagram its connection ID begins, `ABSENT` if that is too short."""
    if size < 1 + fewest_bytes:
        return ABSENT
    if word8(memory, datagram) & LONG_HEADER == 0:
        return 1
    said_bytes = word8(memory, datagram + LENGTH_AT)  # it is there: `fewest_bytes` are 6 at least
    return LENGTH_AT + 1 if fewest_bytes <= said_bytes <= size - (LENGTH_AT + 1) else ABSENT
