"""What a packet thread shares with the rest of the process: numbers in arrays, never an object and never a lock.

    main thread,     ---- directory: VIPs, headers ---->    packet thread: compiled, without the interpreter
    the reference    <--- rare frames, and a nudge -----    lock, waiting for nothing but packets
                     <--- counters, connections ---------

A new directory is published by one store. The packet thread opens it before its next batch, and says so; what the old
one named is kept until then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..compiled import fast, inlined
from ..errors import Reason
from ..fast.conntrack import FastConnectionTable
from ..fast.forwarding import FORWARDED, LARGEST_BATCH, REASONS, Batch, decide, new_batch
from ..fast.gre import Headers
from ..fast.limits import Budgets
from ..fast.vips import FastMap, Tables
from ..fast.words import prefetch
from .machine_code import acquire, announce, array_at, release, seconds, write

Array = np.ndarray[Any, Any]

STOP, DIRECTORY, IN_USE, BEAT = range(4)  # what a mailbox holds
WRITTEN, READ = range(2)  # what `marks` holds
LONGEST_WAIT_MS = 200  # for packets: a thread that turns round less often than that has stopped moving
QUEUE_FRAMES = 256  # that wait for the reference; what comes when the queue is full is dropped
QUEUED_BYTES = 9216  # of the largest frame that can wait
BATCH_CLASSES = LARGEST_BATCH.bit_length()  # sizes of batches that are told apart: powers of two
LOOKS_BEFORE_WAITING = 300  # for more packets, some microseconds long: near full load a wait costs more than it saves
OVERLOAD, SEND_FAILED = REASONS.index(Reason.OVERLOAD), REASONS.index(Reason.SEND_FAILED)
TOO_BIG = REASONS.index(Reason.TOO_BIG)


class Directory:
    """Where everything lies that packet threads need and that may be exchanged, and the counters that go with it."""

    def __init__(self, served: FastMap, headers: Headers, mtu_bytes: int, budgets: Sequence[Array]) -> None:
        """Takes the VIPs' budgets, an array for each packet thread."""
        self.served = served
        threads = len(budgets)
        self.counters = np.zeros((threads, served.counters, 2), np.int64)  # packets and bytes, by VIP and backend
        self._kept = (*served.tables, *headers)  # as long as this directory is
        shared = [number for array in self._kept for number in (array.ctypes.data, array.shape[0])]
        self._budgets = budgets  # kept as long as this directory is
        self._rows = [
            np.array([*shared, row.ctypes.data, len(row), own.ctypes.data, len(own), mtu_bytes], np.int64)
            for row, own in zip(self.counters, budgets, strict=True)
        ]

    def address(self, thread: int) -> int:
        """Returns the number by which a packet thread opens this directory."""
        return int(self._rows[thread].ctypes.data)


class Opened(NamedTuple):
    """A directory as a packet thread sees it."""

    tables: Tables
    headers: Headers
    counters: Array  # int64 (…, 2): packets and bytes forwarded, by VIP and backend
    budgets: Array  # float64 (VIPs, 2): what is left of new flows
    mtu_bytes: int


@inlined
def open_directory(mailbox: Array) -> Opened:
    """Returns what is published now, and says that it is in use."""
    address = acquire(mailbox, DIRECTORY)
    while address != mailbox[IN_USE]:
        announce(mailbox, IN_USE, address)
        address = acquire(mailbox, DIRECTORY)  # exchanged before we announced: then the first may be gone already
    at = array_at(address, (25,), types.int64)
    tables = Tables(
        array_at(at[0], (at[1], 4), types.uint64),
        array_at(at[2], (at[3], 2), types.uint64),
        array_at(at[4], (at[5], 6), types.int64),
        array_at(at[6], (at[7], 5), types.int64),
        array_at(at[8], (at[9],), types.int32),
        array_at(at[10], (at[11],), types.uint8),
        array_at(at[12], (at[13],), types.int64),
        array_at(at[14], (at[15],), types.float64),
    )
    headers = Headers(array_at(at[16], (at[17],), types.uint8), array_at(at[18], (at[19], 3), types.int64))
    counters, budgets = array_at(at[20], (at[21], 2), types.int64), array_at(at[22], (at[23], 2), types.float64)
    return Opened(tables, headers, counters, budgets, at[24])


class Queue(NamedTuple):
    """Frames on their way to the reference, as compiled code takes them."""

    frames: Array  # uint8 (frames x bytes,)
    sizes: Array  # int64 (frames,)
    marks: Array  # int64 (2,): frames written and read so far
    nudge: Array  # int64 (2,): the eventfd that wakes the reader, and the 1 to write to it


@inlined
def hand_over(queue: Queue, memory: Array, start: int, size: int) -> bool:
    """Copies a frame into the queue, and wakes the reader; False if there is no room for it."""
    written = queue.marks[WRITTEN]
    if written - acquire(queue.marks, READ) >= QUEUE_FRAMES or size > QUEUED_BYTES:
        return False
    slot = written % QUEUE_FRAMES
    for at in range(size):
        queue.frames[slot * QUEUED_BYTES + at] = memory[start + at]
    queue.sizes[slot] = size
    release(queue.marks, WRITTEN, written + 1)
    write(np.int32(queue.nudge[0]), queue.nudge.ctypes.data + 8, np.uint64(8))
    return True


class Desk(NamedTuple):
    """All that a packet thread works with, whatever moves its packets."""

    mailbox: Array  # int64 (4,)
    connections: Any  # fast.conntrack.Connections
    batch: Batch
    queue: Queue
    reasons: Array  # int64 (reasons,): packets that were not forwarded
    batches: Array  # int64 (9,): batches of 1, 2 or more, 4 or more, … 256 packets
    clock: Array  # int64 (2,): room for the time


@inlined
def size_class(count: int) -> int:
    """Returns the binary logarithm of a batch's size, rounded down."""
    found = 0
    while count > 1:
        count >>= 1
        found += 1
    return found


@inlined
def decide_batch(desk: Desk, memory: Array, count: int) -> Opened:
    """Decides on the `count` frames of the batch, which lie in `memory`; returns the directory that it went by."""
    opened = open_directory(desk.mailbox)
    desk.batches[size_class(count)] += 1
    now = seconds(desk.clock)
    decide(
        memory, desk.batch, count, opened.tables, opened.headers, desk.connections, opened.budgets, opened.mtu_bytes,
        now,
    )  # fmt: skip
    for i in range(count):
        if desk.batch.verdicts[i] == FORWARDED:
            prefetch(opened.counters, np.uint64(desk.batch.counters[i]))  # with many VIPs they are many, and far apart
    return opened


@fast
def _publish(mailbox: Array, address: int) -> None:
    announce(mailbox, DIRECTORY, address)


@fast
def _mark_read(marks: Array, read: int) -> None:
    release(marks, READ, read)


@fast
def _written(marks: Array) -> int:
    return acquire(marks, WRITTEN)


class PacketThread:
    """One packet thread's desk, and how the rest of the process reaches it."""

    def __init__(self, number: int, table: FastConnectionTable, nudge: int) -> None:
        self.number, self.table = number, table
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # ends its waiting for packets
        queue = Queue(
            np.zeros(QUEUE_FRAMES * QUEUED_BYTES, np.uint8),
            np.zeros(QUEUE_FRAMES, np.int64),
            np.zeros(2, np.int64),
            np.array([nudge, 1], np.int64),
        )
        reasons = np.zeros(len(REASONS), np.int64)
        self.budgets = Budgets()
        batches = np.zeros(BATCH_CLASSES, np.int64)
        self.desk = Desk(
            np.zeros(4, np.int64), table.arrays, new_batch(), queue, reasons, batches, np.zeros(2, np.int64)
        )  # fmt: skip

    def publish(self, directory: Directory) -> None:
        """Has the thread use a directory from its next batch on."""
        _publish(self.desk.mailbox, directory.address(self.number))

    @property
    def beat(self) -> int:
        """Returns how often the thread has turned round."""
        return int(self.desk.mailbox[BEAT])

    def out_of_use(self, directory: Directory) -> bool:
        """Says whether the thread has turned to a newer directory, or never used this one."""
        return int(self.desk.mailbox[IN_USE]) != directory.address(self.number)

    def stop(self) -> None:
        """Makes the thread return soon."""
        self.desk.mailbox[STOP] = 1
        os.eventfd_write(self.wake, 1)

    def rare_frames(self) -> Iterator[bytes]:
        """Yields the frames that wait for the reference, in the order in which they came."""
        queue = self.desk.queue
        while (read := int(queue.marks[READ])) < _written(queue.marks):
            slot = read % QUEUE_FRAMES
            start = slot * QUEUED_BYTES
            frame = queue.frames[start : start + int(queue.sizes[slot])].tobytes()
            _mark_read(queue.marks, read + 1)
            yield frame

    def close(self) -> None:
        """Gives back what the thread held; it must have returned."""
        os.close(self.wake)
