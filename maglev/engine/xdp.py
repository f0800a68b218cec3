"""The engine `xdp`: packets go between the driver and our memory, past the kernel's network stack (AF_XDP).

A BPF program at the interface's driver (native mode; behind it in generic mode, where the driver knows no XDP) looks
at each packet's destination: packets to VIPs it hands to our socket, all others take their usual way. Memory is one
pool of chunks, and chunks are all that changes hands, by their place in the pool, through four rings:

    fill          we   -> kernel    free chunks, to receive into
    receive       kernel -> us      chunks with a packet
    transmit      we   -> kernel    chunks with a packet, its outer header in front
    completion    kernel -> us      chunks whose packet has been sent: they are free

With several packet threads on one queue all sockets share one pool, and so its fill and completion rings: whoever
holds the lock serves them, and nobody waits for it. See Documentation/networking/af_xdp.rst in Linux.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator

import numpy as np

from ..compiled import fast, inlined
from ..errors import PlatformError
from ..fast.forwarding import FORWARDED, LARGEST_BATCH, RARE, count_forwarded
from ..fast.words import LINE_BYTES, prefetch
from ..vips import ADDRESS_BITS, Prefix, VipMap
from . import bpf
from .af_xdp import COMPLETED, FILLED, LOCK, RING, SENT, SPARE, TAKEN, Pool, Sockets, Xsk, queues_of
from .contract import Options
from .fast_engine import FastEngine
from .machine_code import acquire, errno, poll, release, sendto, take
from .packet_thread import (
    BEAT,
    LONGEST_WAIT_MS,
    LOOKS_BEFORE_WAITING,
    OVERLOAD,
    SEND_FAILED,
    STOP,
    Desk,
    Opened,
    PacketThread,
    decide_batch,
    hand_over,
)
from .steering import ADDRESS_BYTES, ALL, GRE_ONLY, redirect_vips

MSG_DONTWAIT = 0x40
EBUSY, ENETDOWN = 16, 100
M32 = 0xFFFFFFFF  # ring positions count in 32 bits
MOST_VIPS = 1 << 16
MODES = {"native": bpf.NATIVE, "generic": bpf.GENERIC}  # the better one first


@fast
def work(xsk: Xsk, pool: Pool, desk: Desk) -> None:
    """Moves packets until the mailbox says to stop."""
    looks = 0
    while desk.mailbox[STOP] == 0:
        desk.mailbox[BEAT] += 1
        _recycle(xsk, pool)
        count = _collect(xsk, pool, desk)
        if count == 0:
            looks += 1
            if not _push(xsk, desk) and not xsk.busy and looks > LOOKS_BEFORE_WAITING:
                poll(xsk.polled.ctypes.data, np.uint64(2), np.int32(LONGEST_WAIT_MS))
            continue
        looks = 0
        opened = decide_batch(desk, pool.memory, count)
        _sort(xsk, pool, desk, opened, count)
        _push(xsk, desk)


@inlined
def _collect(xsk: Xsk, pool: Pool, desk: Desk) -> int:
    """Fills the batch with received packets, no more than there is room to send, and has them fetched from memory."""
    taken, sent = xsk.state[TAKEN], xsk.state[SENT]
    there = (np.int64(acquire(xsk.receive.produced, 0)) - taken) & M32
    room = RING - ((sent - np.int64(acquire(xsk.transmit.consumed, 0))) & M32)
    count = min(there, room, LARGEST_BATCH)
    for i in range(count):
        place = (taken + i) & (RING - 1)
        start = np.int64(xsk.receive.entries[place, 0])
        desk.batch.starts[i] = start
        prefetch(pool.lines, np.uint64(start // LINE_BYTES))
        desk.batch.sizes[i] = np.int64(xsk.receive.entries[place, 1] & np.uint64(M32))
    return count


@inlined
def _sort(xsk: Xsk, pool: Pool, desk: Desk, opened: Opened, count: int) -> None:
    """Puts what is to be sent into the transmit ring, hands over what is rare, counts the rest."""
    batch, sent = desk.batch, xsk.state[SENT]
    for i in range(count):
        verdict = batch.verdicts[i]
        if verdict == FORWARDED:
            xsk.transmit.entries[sent & (RING - 1), 0] = np.uint64(batch.starts[i])
            xsk.transmit.entries[sent & (RING - 1), 1] = np.uint64(batch.sizes[i])
            count_forwarded(batch, i, opened.counters)
            sent += 1
            continue
        if verdict != RARE:
            desk.reasons[verdict] += 1
        elif not hand_over(desk.queue, pool.memory, batch.starts[i], batch.sizes[i]):
            desk.reasons[OVERLOAD] += 1
        xsk.spare[xsk.state[SPARE]] = batch.starts[i]
        xsk.state[SPARE] += 1
    xsk.state[TAKEN] += count
    release(xsk.receive.consumed, 0, np.uint32(xsk.state[TAKEN] & M32))
    if sent != xsk.state[SENT]:
        xsk.state[SENT] = sent
        release(xsk.transmit.produced, 0, np.uint32(sent & M32))


@inlined
def _push(xsk: Xsk, desk: Desk) -> bool:
    """Has the kernel send what stands in the transmit ring; returns False if there is nothing, or no way to send it."""
    if np.int64(acquire(xsk.transmit.consumed, 0)) == xsk.state[SENT] & M32:
        return False
    if sendto(xsk.descriptor[0], 0, np.uint64(0), np.int32(MSG_DONTWAIT), 0, np.uint32(0)) >= 0:
        return True
    reason = errno()
    if reason == EBUSY:  # the interface took a packet and dropped it
        desk.reasons[SEND_FAILED] += 1
    return reason != ENETDOWN


@inlined
def _recycle(xsk: Xsk, pool: Pool) -> None:
    """Gives chunks back to the kernel to receive into: those of packets sent, and those of packets not sent on."""
    if (
        np.int64(acquire(pool.completion.produced, 0)) == pool.state[COMPLETED] & M32 and xsk.state[SPARE] == 0
    ) or not take(pool.state, LOCK):
        return
    filled, completed = pool.state[FILLED], pool.state[COMPLETED]
    until = np.int64(acquire(pool.completion.produced, 0))
    first_byte = ~(pool.chunk_bytes - 1)
    while completed & M32 != until:
        chunk = np.int64(pool.completion.entries[completed & (pool.completion.entries.shape[0] - 1), 0]) & first_byte
        pool.fill.entries[filled & (pool.fill.entries.shape[0] - 1), 0] = np.uint64(chunk)
        completed += 1
        filled += 1
    for i in range(xsk.state[SPARE]):
        pool.fill.entries[filled & (pool.fill.entries.shape[0] - 1), 0] = np.uint64(xsk.spare[i] & first_byte)
        filled += 1
    xsk.state[SPARE] = 0
    pool.state[FILLED], pool.state[COMPLETED] = filled, completed
    release(pool.completion.consumed, 0, np.uint32(completed & M32))
    release(pool.fill.produced, 0, np.uint32(filled & M32))
    release(pool.state, LOCK, 0)


class XdpEngine(FastEngine):
    """Packet threads on AF_XDP sockets."""

    name = "xdp"

    def __init__(self, options: Options) -> None:
        queues = queues_of(options.interface)
        self._by_queue = queues > 1
        if self._by_queue and queues != options.threads:
            raise PlatformError(
                f"{options.interface} has {queues} receive queues and there are {options.threads} packet threads: "
                f"give the interface one queue (ethtool -L {options.interface} …), or as many threads as it has queues"
            )
        super().__init__(options)
        with self._closing_on_failure():
            self._open()
            self._compile()
            self._attach()

    @contextlib.contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """Gives back what was opened if the rest cannot be: another engine is going to be tried."""
        try:
            yield
        except OSError as error:
            self.close()
            raise PlatformError(f"AF_XDP does not work on {self._options.interface}: {error.strerror}") from None
        except PlatformError:
            self.close()
            raise

    def _open(self) -> None:
        """Opens a socket for each thread, and makes the program that will hand packets to them."""
        self._vips = self._map(bpf.HASH, ADDRESS_BYTES, 1, MOST_VIPS, bpf.NO_PREALLOC)
        self._prefixes = self._map(bpf.LPM_TRIE, 4 + ADDRESS_BYTES, 1, MOST_VIPS, bpf.NO_PREALLOC)
        self._redirected: set[Prefix] = set()
        for address in self._own:
            self._vips.put(address, bytes([GRE_ONLY]))
        handles = self._map(bpf.XSKMAP, 4, 4, len(self._threads))
        self._pools: list[Pool] = []
        self._sockets = self._open_sockets(Sockets(self._options.interface, self._options.busy_poll, self._undo))
        for number, xsk in enumerate(self._sockets):
            handles.put(number.to_bytes(4, "little"), int(xsk.descriptor[0]).to_bytes(4, "little"))
        self._program = redirect_vips(self._vips, self._prefixes, handles, len(self._threads), self._by_queue)
        self._undo.callback(os.close, self._program)

    def _open_sockets(self, sockets: Sockets) -> list[Xsk]:
        """Opens sockets with a pool each, one a queue; or on the only queue with one pool for all."""
        opened: list[Xsk] = []
        chunks = RING if self._by_queue else RING << (len(self._threads) - 1).bit_length()
        for thread in self._threads:
            if self._by_queue or not opened:
                xsk, pool = sockets.open(thread.number, thread.wake, chunks)
            else:
                xsk = sockets.open_beside(opened[0], 0, thread.wake, chunks)
            opened.append(xsk)
            self._pools.append(pool)
        return opened

    def _map(self, *shape: int) -> bpf.Map:
        made = bpf.Map(*shape)
        self._undo.callback(made.close)
        return made

    def _attach(self) -> None:
        """Lets the program see the interface's packets, at the best place that its driver has."""
        index = socket.if_nametoindex(self._options.interface)
        for mode, flag in MODES.items():
            try:
                link = bpf.attach_xdp(self._program, index, flag)
            except OSError as error:
                refused = error
                continue
            self._undo.callback(os.close, link)
            how = "a queue a thread" if self._by_queue else "one queue"
            self.detail = f"AF_XDP, {mode} mode, {how}"
            return
        raise refused

    def adopt(self, vips: VipMap) -> None:
        """Exchanges the map of VIPs; packets to new VIPs come to us only when packet threads know them."""
        super().adopt(vips)
        wanted = set(vips.services)
        for prefix in wanted - self._redirected:
            self._place_of(prefix).put(_key_of(prefix), bytes([ALL]))
        for prefix in self._redirected - wanted:
            self._place_of(prefix).remove([_key_of(prefix)])
        self._redirected = wanted

    def _place_of(self, prefix: Prefix) -> bpf.Map:
        return self._vips if prefix.bits == ADDRESS_BITS else self._prefixes

    def close(self) -> None:
        """Gives everything back; a ring that is still mapped would keep its queue busy."""
        self._sockets, self._pools = [], []
        super().close()

    def _work(self, thread: PacketThread) -> None:
        work(self._sockets[thread.number], self._pools[thread.number], thread.desk)


def _key_of(prefix: Prefix) -> bytes:
    """Returns the key of a VIP in the program's maps: struct bpf_lpm_trie_key where it is more than one address."""
    length = b"" if prefix.bits == ADDRESS_BITS else prefix.bits.to_bytes(4, sys.byteorder)
    return length + prefix.address
