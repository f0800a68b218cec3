"""AF_XDP sockets: their pool of memory and their rings, as the kernel lays them out (linux/if_xdp.h).

Set up in plain Python, by the system calls themselves: it takes six options of a socket and four mappings.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import time
from typing import Any, NamedTuple

import numpy as np

from ..errors import PlatformError
from ..fast.words import LINE_BYTES
from ..packets import ETHERNET_BYTES
from .socket import mtu_of

Array = np.ndarray[Any, Any]

AF_XDP, SOL_XDP = 44, 283
XDP_MMAP_OFFSETS, XDP_RX_RING, XDP_TX_RING, XDP_UMEM_REG, XDP_FILL_RING, XDP_COMPLETION_RING = range(1, 7)
XDP_MAX_TX_SKB_BUDGET = 9
XDP_SHARED_UMEM, XDP_COPY, XDP_USE_NEED_WAKEUP = 1, 2, 8
RECEIVE, TRANSMIT, FILL, COMPLETION = 0, 0x80000000, 0x100000000, 0x180000000  # where a ring is mapped from
MAP_POPULATE = 0x8000
POLLIN = 1
ETHTOOL_GCHANNELS, SIOCETHTOOL = 0x3C, 0x8946  # linux/ethtool.h, linux/sockios.h

RING = 4096  # entries of a ring, and chunks of a pool for each packet thread
HEADROOM_BYTES = 256  # XDP leaves so much of a chunk before the packet
SEND_BUDGET = 2048  # packets that one call may send
BIND_TIMEOUT_S, BIND_RETRY_S = 5.0, 0.02  # a queue stays busy for a moment after its last user has gone

LOCK, FILLED, COMPLETED = range(3)  # what `state` of a pool holds
TAKEN, SENT, SPARE = range(3)  # what `state` of a socket holds

LIBC = ctypes.CDLL(None, use_errno=True)


class Ring(NamedTuple):
    """How far either side of a ring has got, and what lies in it."""

    produced: Array  # uint32 (1,)
    consumed: Array  # uint32 (1,)
    entries: Array  # uint64 (entries, 1): a place in the pool; or (entries, 2): a place, and a length


class Pool(NamedTuple):
    """Memory for packets, and the two rings by which free chunks of it change hands."""

    memory: Array  # uint8
    lines: Array  # uint8 (lines, 64): the same
    chunk_bytes: int
    fill: Ring
    completion: Ring
    state: Array  # int64 (3,): a lock, chunks given to the kernel, chunks taken back


class Xsk(NamedTuple):
    """One packet thread's socket, as compiled code takes it."""

    receive: Ring
    transmit: Ring
    descriptor: Array  # int32 (1,)
    polled: Array  # int32 (4,): struct pollfd of the socket, and of the eventfd that wakes us
    spare: Array  # int64: chunks to be given back
    state: Array  # int64 (3,): packets taken and sent so far, and chunks in `spare`
    busy: bool


def queues_of(interface: str) -> int:
    """Returns how many receive queues an interface has; 1 where its driver does not say."""
    channels = ctypes.create_string_buffer(struct.pack("9I", ETHTOOL_GCHANNELS, *[0] * 8), 36)
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(channels))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)
        except OSError:
            return 1
    counts = struct.unpack("9I", channels.raw)
    return max(1, counts[5] + counts[8])  # receive, combined


class Sockets:
    """Opens the sockets of an interface; `undo` closes them. OSError if the kernel refuses."""

    def __init__(self, interface: str, busy: bool, undo: contextlib.ExitStack) -> None:
        self._interface, self._busy, self._undo = interface, busy, undo
        self._chunk_bytes = chunk_bytes_for(mtu_of(interface))

    def open(self, queue: int, wake: int, chunks: int) -> tuple[Xsk, Pool]:
        """Returns a socket for a queue of the interface, and the pool of `chunks` that it receives into."""
        xsk = self._new()
        memory = np.frombuffer(mmap.mmap(-1, chunks * self._chunk_bytes), np.uint8)
        registration = struct.pack("QQIIII", memory.ctypes.data, memory.size, self._chunk_bytes, 0, 0, 0)
        xsk.setsockopt(SOL_XDP, XDP_UMEM_REG, registration)
        for ring in (XDP_FILL_RING, XDP_COMPLETION_RING):
            xsk.setsockopt(SOL_XDP, ring, chunks)
        fill, completion = self._ring(xsk, FILL, chunks), self._ring(xsk, COMPLETION, chunks)
        fill.entries[:, 0] = np.arange(chunks, dtype=np.uint64) * np.uint64(self._chunk_bytes)
        fill.produced[0] = chunks
        pool = Pool(
            memory,
            memory.reshape(-1, LINE_BYTES),
            self._chunk_bytes,
            fill,
            completion,
            np.array([0, chunks, 0], np.int64),
        )
        return self._finish(xsk, queue, wake, 2 * chunks, XDP_COPY | XDP_USE_NEED_WAKEUP, 0), pool

    def open_beside(self, first: Xsk, queue: int, wake: int, chunks: int) -> Xsk:
        """Returns another socket for the queue of `first`, with the same pool."""
        return self._finish(self._new(), queue, wake, 2 * chunks, XDP_SHARED_UMEM, int(first.descriptor[0]))

    def _new(self) -> socket.socket:
        try:
            return self._undo.enter_context(socket.socket(AF_XDP, socket.SOCK_RAW, 0))
        except PermissionError:
            raise PlatformError("an AF_XDP socket needs CAP_NET_RAW: run the forwarder as root") from None

    def _finish(self, xsk: socket.socket, queue: int, wake: int, spare: int, flags: int, shared: int) -> Xsk:
        for ring in (XDP_RX_RING, XDP_TX_RING):
            xsk.setsockopt(SOL_XDP, ring, RING)
        receive, transmit = self._ring(xsk, RECEIVE, RING), self._ring(xsk, TRANSMIT, RING)
        self._bind(xsk, struct.pack("HHIII", AF_XDP, flags, socket.if_nametoindex(self._interface), queue, shared))
        with contextlib.suppress(OSError):  # Linux before 6.18 sends 32 packets a call
            xsk.setsockopt(SOL_XDP, XDP_MAX_TX_SKB_BUDGET, SEND_BUDGET)
        descriptor = xsk.fileno()
        polled = np.array([descriptor, POLLIN, wake, POLLIN], np.int32)
        numbers = np.zeros(spare, np.int64), np.zeros(3, np.int64)
        return Xsk(receive, transmit, np.array([descriptor], np.int32), polled, *numbers, self._busy)

    def _ring(self, xsk: socket.socket, place: int, entries: int) -> Ring:
        """Maps one of a socket's rings; its layout is struct xdp_mmap_offsets."""
        offsets = struct.unpack("16Q", xsk.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
        number = (RECEIVE, TRANSMIT, FILL, COMPLETION).index(place)
        produced, consumed, first, _ = offsets[4 * number : 4 * number + 4]
        words = 2 if place in (RECEIVE, TRANSMIT) else 1
        size = first + 8 * words * entries
        mapped = mmap.mmap(
            xsk.fileno(), size, mmap.MAP_SHARED | MAP_POPULATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=place
        )
        memory = np.frombuffer(mapped, np.uint8)
        return Ring(
            memory[produced : produced + 4].view(np.uint32),
            memory[consumed : consumed + 4].view(np.uint32),
            memory[first:size].view(np.uint64).reshape(entries, words),
        )

    def _bind(self, xsk: socket.socket, address: bytes) -> None:
        deadline = time.monotonic() + BIND_TIMEOUT_S
        while LIBC.bind(xsk.fileno(), address, len(address)) != 0:
            code = ctypes.get_errno()
            if code != errno.EBUSY or time.monotonic() > deadline:
                raise OSError(code, os.strerror(code))
            time.sleep(BIND_RETRY_S)


def chunk_bytes_for(mtu_bytes: int) -> int:
    """Returns the size of a chunk that holds a link's largest frame; PlatformError if a page does not hold it."""
    needed = HEADROOM_BYTES + ETHERNET_BYTES + mtu_bytes
    if needed > mmap.PAGESIZE:
        most = mmap.PAGESIZE - HEADROOM_BYTES - ETHERNET_BYTES
        raise PlatformError(f"AF_XDP takes packets up to {most} bytes, and the link has an MTU of {mtu_bytes}")
    return max(2048, 1 << (needed - 1).bit_length())


def empty_xsk() -> tuple[Xsk, Pool]:
    """Returns a socket and a pool that are none: with them compiled code can be had compiled."""
    mark, no_memory = np.zeros(1, np.uint32), np.zeros(LINE_BYTES, np.uint8)
    places, lengths = (Ring(mark, mark, np.zeros((1, words), np.uint64)) for words in (1, 2))
    numbers = np.zeros(3, np.int64)
    pool = Pool(no_memory, no_memory.reshape(-1, LINE_BYTES), 1, places, places, numbers)
    nothing = np.zeros(4, np.int32)
    return Xsk(lengths, lengths, nothing, nothing, numbers, numbers, False), pool
