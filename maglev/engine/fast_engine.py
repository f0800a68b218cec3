"""What engines with a compiled fast path have in common: packet threads, and the reference for what is rare.

The main thread runs the reference: it takes the frames that the packet threads hand it, decides with a connection
table of its own, and sends through a plain packet socket. So nothing that is rare can hold up what is common.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from time import monotonic

import numpy as np

from ..conntrack import ConnectionTable
from ..fast.conntrack import KEY_BYTES, FastConnectionTable
from ..fast.forwarding import REASONS
from ..fast.gre import HeaderMaker
from ..fast.numbering import Numbering
from ..fast.vips import FastMap
from ..flow import Flow, by_family
from ..forwarding import Statistics
from ..vips import EMPTY, VipMap
from .contract import Engine, Options, Table
from .machine import name_thread
from .memory import zeros_at_once, zeros_by_page
from .packet_thread import STOP, Directory, PacketThread
from .socket import carry_out, mtu_of, open_sender

LONGEST_SLEEP_S = 0.5  # of the main thread: a signal that comes just before it falls asleep does not wake it


class RareConnections:
    """What the reference remembers of rare packets' flows; what packet threads remember, it may look at."""

    def __init__(self, own: ConnectionTable, threads: Sequence[PacketThread]) -> None:
        self._own, self._threads = own, threads
        self.lookup, self.record = own.lookup, own.record

    def peek(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None:
        """Returns the flow's backend (16 bytes), None if nobody remembers it."""
        for thread in self._threads:
            if (backend := thread.table.peek(flow, now, within_s)) is not None:
                return backend
        return self._own.peek(flow, now, within_s)


class FastEngine(Engine):
    """The base of `ring` and `xdp`, which say how packets are moved."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._numbering = Numbering()
        self._own = tuple(by_family(options.own).values())
        self._headers = HeaderMaker(self._own, self._numbering)
        self._next_hops: Mapping[bytes, bytes] = {}
        self._served = self._map_of(EMPTY)
        self._exchanging = threading.Lock()  # between those who exchange; packet threads take no lock
        self._directories: list[Directory] = []  # the last is the newest
        self._retired = Statistics()  # counted under directories that are gone
        self._undo = contextlib.ExitStack()
        self._nudge = os.eventfd(0, os.EFD_CLOEXEC)
        self._undo.callback(os.close, self._nudge)
        self._sender = self._undo.enter_context(open_sender(options.interface))
        self._rare_connections = options.table()
        self._rare = Statistics()
        self._threads = [self._packet_thread(number) for number in range(options.threads)]
        self._reference = options.reference(RareConnections(self._rare_connections, self._threads))
        self._stopping = False
        self._publish()

    def _compile(self) -> None:
        """Has the packet loop compiled, or loaded, before packets wait for it: each thread starts and stops at once."""
        for thread in self._threads:
            thread.desk.mailbox[STOP] = 1
            self._work(thread)
            thread.desk.mailbox[STOP] = 0

    def _packet_thread(self, number: int) -> PacketThread:
        capacity, idle_timeout_s = self._options.capacity, self._options.idle_timeout_s
        keys, zeros = secrets.token_bytes(KEY_BYTES), zeros_at_once if self._options.huge_pages else zeros_by_page
        most = self._options.most_per_source
        table = FastConnectionTable(self._numbering, capacity, idle_timeout_s, keys, zeros, most)
        thread = PacketThread(number, table, self._nudge)
        self._undo.callback(thread.close)
        return thread

    def _map_of(self, vips: VipMap) -> FastMap:
        return FastMap(vips, self._numbering, self._own, self._options.idle_timeout_s, self._options.threads)

    def _work_as(self, thread: PacketThread) -> None:
        """Does a packet thread's work under its name, by which `top -H` and others find it (proc(5), comm)."""
        name_thread(f"packets {thread.number}")
        self._work(thread)

    @abstractmethod
    def _work(self, thread: PacketThread) -> None:
        """Moves packets as one packet thread, until its mailbox says to stop."""

    def adopt(self, vips: VipMap) -> None:
        with self._exchanging:
            self._served = self._map_of(vips)
            self._reference.vips = vips
            self._publish()

    def follow(self, next_hops: Mapping[bytes, bytes]) -> None:
        with self._exchanging:
            self._next_hops = next_hops
            self._publish()

    def _publish(self) -> None:
        headers = self._headers.headers(self._next_hops)
        self._reference.mtu_bytes = mtu_of(self._options.interface)
        budgets = [thread.budgets.exchange(self._served) for thread in self._threads]
        directory = Directory(self._served, headers, self._reference.mtu_bytes, budgets)
        self._directories.append(directory)
        for thread in self._threads:
            thread.publish(directory)
        self._retire()

    def _retire(self) -> None:
        """Lets go of the directories that no packet thread uses any more, and keeps what was counted under them."""
        for old in self._directories[:-1]:
            if all(thread.out_of_use(old) for thread in self._threads):
                self._retired.add(old.served.counted(old.counters.sum(axis=0)))
                self._directories.remove(old)

    def run(self) -> None:
        workers = [
            threading.Thread(target=self._work_as, args=(thread,), name=f"packets {thread.number}", daemon=True)
            for thread in self._threads
        ]
        for worker in workers:
            worker.start()
        try:
            while not self._stopping:
                if select.select([self._nudge], [], [], LONGEST_SLEEP_S)[0]:
                    os.read(self._nudge, 8)
                    self._serve_rare()
        finally:
            for thread in self._threads:
                thread.stop()
            for worker in workers:
                worker.join()

    def _serve_rare(self) -> None:
        for thread in self._threads:
            for frame in thread.rare_frames():
                decision = self._reference.decide(frame, monotonic())
                carry_out(self._sender, decision, frame, self._next_hops.get, self._rare.count)

    def stop(self) -> None:
        self._stopping = True
        os.eventfd_write(self._nudge, 1)

    def close(self) -> None:
        self._undo.close()

    def statistics(self) -> Statistics:
        found = Statistics()
        with self._exchanging:
            found.add(self._retired)
            for directory in self._directories:
                found.add(directory.served.counted(directory.counters.sum(axis=0)))
        found.add(self._rare, self._reference.fragments.expired(monotonic()))
        for thread in self._threads:
            for code in np.flatnonzero(thread.desk.reasons).tolist():
                found.reasons[REASONS[code]] += int(thread.desk.reasons[code])
        return found

    @property
    def beats(self) -> Sequence[int]:
        return [thread.beat for thread in self._threads]

    @property
    def batch_sizes(self) -> Mapping[int, int]:
        counts = np.sum([thread.desk.batches for thread in self._threads], axis=0)
        return {1 << power: count for power, count in enumerate(counts.tolist())}

    @property
    def tables(self) -> Sequence[Table]:
        return [*(thread.table for thread in self._threads), self._rare_connections]
