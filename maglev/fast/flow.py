"""The twin of `maglev.flow`: the hash by which every Maglev finds a flow's slot, over a key of 64-bit words."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ..compiled import inlined, signed
from ..flow import Flow

Array = np.ndarray[Any, Any]
Key = tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]
"""Source and destination, two words each; then ports (16 bits each), 16 bits unused, protocol (8), and 8 bits of 1.

The last byte makes sure that no flow's key is 0 everywhere.
"""


def _tables() -> Array:
    """Returns int64 (8, 256): what a byte adds to a CRC-32 when 0 to 7 bytes follow it (Kounavis and Berry, 2005)."""
    tables = np.empty((8, 256), np.int64)
    tables[0] = [zlib.crc32(bytes([byte])) ^ zlib.crc32(b"\0") for byte in range(256)]
    for following in range(1, 8):
        before = tables[following - 1]
        tables[following] = before >> 8 ^ tables[0, before & 0xFF]
    return tables


TABLES = _tables()


@inlined
def _crc_of_byte(crc: int, byte: int) -> int:
    return crc >> 8 ^ TABLES[0, (crc ^ byte) & 0xFF]


@inlined
def _crc_of_word(crc: int, word: np.uint64) -> int:
    """Continues a CRC over the eight bytes of a word, all at once."""
    high, low = signed(word >> np.uint64(32)), signed(word & np.uint64(0xFFFFFFFF))
    return (
        TABLES[7, (high >> 24 ^ crc) & 0xFF]
        ^ TABLES[6, (high >> 16 ^ crc >> 8) & 0xFF]
        ^ TABLES[5, (high >> 8 ^ crc >> 16) & 0xFF]
        ^ TABLES[4, (high ^ crc >> 24) & 0xFF]
        ^ TABLES[3, low >> 24]
        ^ TABLES[2, low >> 16 & 0xFF]
        ^ TABLES[1, low >> 8 & 0xFF]
        ^ TABLES[0, low & 0xFF]
    )


@inlined
def selection_hash(key: Key) -> int:
    """Returns the CRC-32 of source, destination, protocol and ports: what `maglev.flow.selection_hash` returns."""
    crc = 0xFFFFFFFF
    for i in range(4):
        crc = _crc_of_word(crc, key[i])
    numbers = signed(key[4] >> np.uint64(32))
    crc = _crc_of_byte(crc, signed(key[4] >> np.uint64(8)) & 0xFF)
    for shift in (24, 16, 8, 0):
        crc = _crc_of_byte(crc, numbers >> shift & 0xFF)
    return crc ^ 0xFFFFFFFF


def key_of(flow: Flow) -> Key:
    """Returns a flow's key."""
    words = np.frombuffer(flow.source + flow.destination, ">u8").astype(np.uint64)
    numbers = flow.source_port << 48 | flow.destination_port << 32 | flow.protocol << 8 | 1
    return words[0], words[1], words[2], words[3], np.uint64(numbers)
