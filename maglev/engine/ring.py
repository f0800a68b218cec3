"""The engine `ring`: packets come in a ring of memory that the kernel fills (PACKET_MMAP), and go out in batches.

The kernel puts each frame into the next slot of the ring and marks the slot as ours; we mark it as the kernel's again
when the packet is on its way. No call is needed to receive. To send, one call takes a whole batch (sendmmsg(2)): the
packets lie in the ring still, each with its outer header in the room that was reserved before it.

The ring is of version 2, one slot a frame. Version 3 has blocks of many frames, is a few per cent faster at its best,
and keeps a lonely packet for a millisecond, until a timer gives the half-empty block away.

    slot (struct tpacket2_hdr, linux/if_packet.h):
    status 4 | length 4 | captured 4 | mac 2 | net 2 | …      … reserved | frame, `mac` bytes from the slot's start
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from typing import Any, NamedTuple

import numpy as np

from ..compiled import fast, inlined
from ..errors import PlatformError
from ..fast.forwarding import FORWARDED, LARGEST_BATCH, RARE, count_forwarded
from ..fast.words import LINE_BYTES, prefetch
from ..packets import ETHERNET_BYTES
from .contract import Options
from .fast_engine import FastEngine
from .machine_code import acquire, errno, getsockopt, poll, release, sendmmsg
from .packet_thread import (
    BEAT,
    LONGEST_WAIT_MS,
    LOOKS_BEFORE_WAITING,
    OVERLOAD,
    SEND_FAILED,
    STOP,
    TOO_BIG,
    Desk,
    Opened,
    PacketThread,
    decide_batch,
    hand_over,
)
from .socket import PACKET_IGNORE_OUTGOING, SOL_PACKET, bind, mtu_of, open_sender, packet_socket
from .steering import steer

Array = np.ndarray[Any, Any]

# linux/if_packet.h
PACKET_RX_RING, PACKET_VERSION, PACKET_RESERVE, PACKET_FANOUT, PACKET_FANOUT_DATA = 5, 10, 12, 18, 22
FANOUT_BY_PROGRAM, FANOUT_NEW_GROUP = 7 << 16, 0x2000 << 16
TPACKET_V2 = 1
TO_KERNEL, TO_USER = 0, 1  # TP_STATUS_*
SOL_SOCKET, SO_ERROR, POLLIN, POLLERR = 1, 4, 1, 8
ETH_P_ALL = 0x0003
EMSGSIZE = 90

RING_BYTES = 16 << 20
HEADROOM_BYTES = 64  # before a frame, for the outer header
SLOT_OVERHEAD_BYTES = 128  # what a slot holds besides its frame: header, address, reserved room
STATUS, CAPTURED = 0, 2  # 32-bit words of a slot
MAC = 6  # 16-bit word of a slot
SLOTS_AHEAD = 8  # whose status is fetched while others are looked at: no processor expects it 2 kB further on
MESSAGE_WORDS, VECTOR_WORDS = 8, 2  # of a struct mmsghdr and a struct iovec, in 64 bits


class Ring(NamedTuple):
    """A ring and what goes with it, as compiled code takes it. The first four arrays are the same memory."""

    memory: Array  # uint8
    lines: Array  # uint8 (lines, 64)
    words: Array  # uint32
    halves: Array  # uint16
    slot_bytes: int
    slots: int
    descriptors: Array  # int32 (2,): to receive on, to send on
    polled: Array  # int32 (4,): struct pollfd of the ring and of the eventfd that wakes us
    messages: Array  # uint64 (batch, 8): struct mmsghdr
    vectors: Array  # uint64 (batch, 2): struct iovec
    sent: Array  # int64 (batch,): places in the batch
    busy: bool
    option: Array  # int32 (2,): room for an option of a socket


@fast
def work(ring: Ring, desk: Desk) -> None:
    """Moves packets until the mailbox says to stop."""
    head, looks = 0, 0
    while desk.mailbox[STOP] == 0:
        desk.mailbox[BEAT] += 1
        count = _collect(ring, desk, head)
        if count == 0:
            looks += 1
            if not ring.busy and looks > LOOKS_BEFORE_WAITING:
                _wait(ring)
            continue
        looks = 0
        opened = decide_batch(desk, ring.memory, count)
        _send(ring, desk, opened, _sort(ring, desk, count))
        for _ in range(count):
            release(ring.words, head * ring.slot_bytes // 4 + STATUS, np.uint32(TO_KERNEL))
            head = (head + 1) % ring.slots


@inlined
def _collect(ring: Ring, desk: Desk, head: int) -> int:
    """Fills the batch with the frames that stand in the ring from slot `head` on, and has them fetched from memory."""
    batch, count = desk.batch, 0
    while count < LARGEST_BATCH:
        slot = head * ring.slot_bytes
        ahead = (head + SLOTS_AHEAD) % ring.slots * ring.slot_bytes
        prefetch(ring.lines, np.uint64(ahead // LINE_BYTES))
        if acquire(ring.words, slot // 4 + STATUS) & np.uint32(TO_USER) == 0:
            break
        start = slot + np.int64(ring.halves[slot // 2 + MAC])
        prefetch(ring.lines, np.uint64(start // LINE_BYTES))
        prefetch(ring.lines, np.uint64(start // LINE_BYTES + 1))
        batch.starts[count] = start
        batch.sizes[count] = ring.words[slot // 4 + CAPTURED]
        count += 1
        head = (head + 1) % ring.slots
    return count


@inlined
def _wait(ring: Ring) -> None:
    """Waits for packets. An interface that goes down is an error that must be read, or waiting would end at once."""
    poll(ring.polled.ctypes.data, np.uint64(2), np.int32(LONGEST_WAIT_MS))
    if (ring.polled[1] >> 16) & POLLERR:
        ring.option[1] = 4
        getsockopt(
            ring.descriptors[0], np.int32(SOL_SOCKET), np.int32(SO_ERROR), ring.option.ctypes.data,
            ring.option.ctypes.data + 4,
        )  # fmt: skip


@inlined
def _sort(ring: Ring, desk: Desk, count: int) -> int:
    """Makes messages of what is to be sent, hands over what is rare, counts the rest; returns how many messages."""
    batch, messages = desk.batch, 0
    for i in range(count):
        verdict = batch.verdicts[i]
        if verdict == FORWARDED:
            ring.vectors[messages, 0] = np.uint64(ring.memory.ctypes.data + batch.starts[i])
            ring.vectors[messages, 1] = np.uint64(batch.sizes[i])
            ring.sent[messages] = i
            messages += 1
        elif verdict == RARE:
            if not hand_over(desk.queue, ring.memory, batch.starts[i], batch.sizes[i]):
                desk.reasons[OVERLOAD] += 1
        else:
            desk.reasons[verdict] += 1
    return messages


@inlined
def _send(ring: Ring, desk: Desk, opened: Opened, messages: int) -> None:
    """Sends the messages, and counts for each that it was sent, or why not."""
    done = 0
    while done < messages:
        address = ring.messages.ctypes.data + done * MESSAGE_WORDS * 8
        sent = sendmmsg(ring.descriptors[1], address, np.uint32(messages - done), np.int32(0))
        if sent <= 0:
            desk.reasons[TOO_BIG if errno() == EMSGSIZE else SEND_FAILED] += 1
            done += 1
        for _ in range(sent):
            count_forwarded(desk.batch, ring.sent[done], opened.counters)
            done += 1


def new_ring(memory: Array, slot_bytes: int, receiver: int, sender: int, wake: int, busy: bool) -> Ring:
    """Returns a ring in `memory`, with the descriptors of its sockets and of the eventfd that ends a wait."""
    vectors = np.zeros((LARGEST_BATCH, VECTOR_WORDS), np.uint64)
    messages = np.zeros((LARGEST_BATCH, MESSAGE_WORDS), np.uint64)
    messages[:, 2] = vectors.ctypes.data + 8 * VECTOR_WORDS * np.arange(LARGEST_BATCH, dtype=np.uint64)
    messages[:, 3] = 1
    return Ring(
        memory=memory,
        lines=memory.reshape(-1, LINE_BYTES),
        words=memory.view(np.uint32),
        halves=memory.view(np.uint16),
        slot_bytes=slot_bytes,
        slots=len(memory) // slot_bytes,
        descriptors=np.array([receiver, sender], np.int32),
        polled=np.array([receiver, POLLIN, wake, POLLIN], np.int32),
        messages=messages,
        vectors=vectors,
        sent=np.zeros(LARGEST_BATCH, np.int64),
        busy=busy,
        option=np.zeros(2, np.int32),
    )


class RingEngine(FastEngine):
    """Packet threads on PACKET_MMAP rings."""

    name = "ring"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.detail = "PACKET_MMAP version 2 in, sendmmsg out"
        self._receivers: list[socket.socket] = []
        try:
            self._rings = [self._open(thread) for thread in self._threads]
            self._steer()
        except OSError as error:
            self.close()
            raise PlatformError(f"this kernel gives no PACKET_MMAP ring: {error.strerror}") from None
        self._compile()

    def _open(self, thread: PacketThread) -> Ring:
        receiver = self._undo.enter_context(packet_socket())
        self._receivers.append(receiver)
        slot_bytes = slot_bytes_for(mtu_of(self._options.interface))
        memory = self._map(receiver, slot_bytes)
        bind(receiver, self._options.interface, ETH_P_ALL)
        sender = self._undo.enter_context(open_sender(self._options.interface))
        return new_ring(
            memory, slot_bytes, receiver.fileno(), sender.fileno(), thread.wake, self._options.busy_poll
        )  # fmt: skip

    def _map(self, receiver: socket.socket, slot_bytes: int) -> Array:
        """Returns the memory of a ring that the socket now receives into."""
        block_bytes = max(slot_bytes, mmap.PAGESIZE)
        receiver.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        receiver.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        receiver.setsockopt(SOL_PACKET, PACKET_RESERVE, HEADROOM_BYTES)
        shape = struct.pack("IIII", block_bytes, RING_BYTES // block_bytes, slot_bytes, RING_BYTES // slot_bytes)
        receiver.setsockopt(SOL_PACKET, PACKET_RX_RING, shape)
        mapped = mmap.mmap(receiver.fileno(), RING_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        return np.frombuffer(mapped, np.uint8)

    def _steer(self) -> None:
        """Has the kernel put each packet into the ring of its flow's thread."""
        if len(self._rings) == 1:
            return
        group, first = FANOUT_NEW_GROUP, self._receivers[0]
        for receiver in self._receivers:
            receiver.setsockopt(SOL_PACKET, PACKET_FANOUT, group | FANOUT_BY_PROGRAM)
            group = first.getsockopt(SOL_PACKET, PACKET_FANOUT) & 0xFFFF
        program = steer(len(self._rings))
        self._undo.callback(os.close, program)
        first.setsockopt(SOL_PACKET, PACKET_FANOUT_DATA, program)

    def close(self) -> None:
        """Gives everything back; memory that is still mapped would keep its socket."""
        self._rings = []
        super().close()

    def _work(self, thread: PacketThread) -> None:
        work(self._rings[thread.number], thread.desk)


def slot_bytes_for(mtu_bytes: int) -> int:
    """Returns the size of a slot that holds a frame of a link's largest packet: a power of two, and part of a page."""
    needed = SLOT_OVERHEAD_BYTES + HEADROOM_BYTES + ETHERNET_BYTES + mtu_bytes
    return 1 << (needed - 1).bit_length()
