"""`maglab pcap`: what crosses a lab's links, live or from files, a line a packet.

    * 22:41:03.123456 r1-m1    r1 > m1   10.0.1.2:40001 > 192.0.2.1:80 tcp S seq 1234, 0 bytes
    * 22:41:03.123498 r1-m1    m1 > r1   10.1.1.2 > 10.2.3.2 gre | 10.0.1.2:40001 > 192.0.2.1:80 tcp S seq 1234, 0 bytes
    * 22:41:03.123571 r1-s3    r1 > s3   10.1.1.2 > 10.2.3.2 gre | 10.0.1.2:40001 > 192.0.2.1:80 tcp S …  LOST

A star marks the flow of interest. What is live is held back for a moment, so that both ends of a link are in order.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from .capture import MARK_ETHERTYPE, PAST_CAPTURES, TCPDUMP, Watch, blind, interfaces, start_on, watches
from .crossings import Crossing, Merger, Sighting, Watched, records, sighting
from .decode import Decoded, Interest, decode
from .errors import LabError
from .site import Site
from .waiting import wait_until
from .wiring import Wiring

HOLD_BACK_NS = 100_000_000  # tcpdumps of two ends are not further apart
POLL_S = 0.05
MOST_AT_ONCE = 10_000
START_TIMEOUT_S = 10.0

Write = Callable[[str], object]


@dataclass
class Tally:
    """What was shown."""

    packets: int = 0
    of_interest: int = 0
    lost: int = 0

    def __str__(self) -> str:
        marked = f", {self.of_interest} of the flow" if self.of_interest else ""
        return f"{self.packets} packets{marked}, {self.lost} lost"


def show(crossings: Iterable[Crossing], write: Write, interest: Interest | None = None, only: bool = False) -> Tally:
    """Writes a line for each packet, or `only` for those of interest; returns how many there were."""
    tally = Tally()
    for crossing in crossings:
        first = crossing.first
        decoded = decode(first.ethertype, first.data, first.wire_bytes)
        is_of_interest = interest is not None and interest.has(decoded)
        tally.packets += 1
        tally.of_interest += is_of_interest
        tally.lost += crossing.is_lost
        if is_of_interest or not only:
            write(line(crossing, decoded, is_of_interest))
    return tally


def line(crossing: Crossing, decoded: Decoded, is_of_interest: bool) -> str:
    """Returns what one packet looks like."""
    seconds, rest_ns = divmod(crossing.time_ns, 10**9)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest_ns // 1000:06}"
    way = f"{crossing.sender} > {crossing.receiver}" if crossing.sender else ""
    lost = "  LOST" if crossing.is_lost else ""
    return f"{'*' if is_of_interest else ' '} {clock} {crossing.place:8} {way:10} {decoded.text}{lost}"


def not_seen(watched: Watched) -> str:
    """Returns a sentence about ends where captures miss packets; "" if there are none."""
    missing = [node for node in watched.blind if node in watched.nodes]
    if not missing:
        return ""
    return (
        f"{', '.join(missing)} moves packets by {PAST_CAPTURES}, past captures: nothing is called lost on the way there"
    )


class Live:
    """A link that is watched now, at both ends; a context manager that ends it."""

    def __init__(self, site: Site, wires: Wiring, pids: Mapping[str, int], link: str) -> None:
        """Starts watching; returns when both ends see packets. WrongUse for a link that there is not."""
        ends = watches(wires, pids, [link])
        self._seen: queue.Queue[Sighting] = queue.Queue()
        self._ready: set[str] = set()
        self._running = {end.node: self._start(site, end) for end in ends}
        wait_until(self._not_yet, START_TIMEOUT_S, "watching")
        self.watched = Watched(wires, list(self._running), blind(site, wires), time.time_ns())

    def _start(self, site: Site, end: Watch) -> subprocess.Popen[bytes]:
        command = [*TCPDUMP, "--immediate-mode", "-i", "any", "-w", "-", *end.filter]
        process = start_on(site, end, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=self._read, args=(process, end.node, interfaces(end.pid)), daemon=True).start()
        return process

    def _not_yet(self) -> str:
        self._check()
        return "" if self._ready == self._running.keys() else "tcpdump is not ready"

    def _check(self) -> None:
        if ended := [node for node, process in self._running.items() if process.poll() is not None]:
            raise LabError(f"tcpdump on {', '.join(ended)} has ended: is the lab still running?")

    def _read(self, process: subprocess.Popen[bytes], node: str, names: Mapping[int, str]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(LabError):  # it has ended, which the other thread sees
            frames = records(process.stdout, f"tcpdump on {node}")
            self._ready.add(node)
            for frame in frames:
                seen = sighting(frame, node, names)
                if seen is not None and seen.ethertype != MARK_ETHERTYPE:
                    self._seen.put(seen)

    def until(self, seconds: float | None = None) -> Iterator[Crossing]:
        """Yields what crosses the link, for so long, or until the generator is closed."""
        merger, order = Merger(self.watched), itertools.count()
        held: list[tuple[int, int, Sighting]] = []
        give_up = time.monotonic() + seconds if seconds is not None else float("inf")
        while time.monotonic() < give_up:
            for seen in itertools.islice(self._take(), MOST_AT_ONCE):
                heapq.heappush(held, (seen.time_ns, next(order), seen))
            now_ns = time.time_ns() - HOLD_BACK_NS
            while held and held[0][0] <= now_ns:
                merger.see(heapq.heappop(held)[2])
            yield from merger.settled(now_ns)
            self._check()
        for _, _, seen in sorted(held):
            merger.see(seen)
        for crossing in merger.rest():
            crossing.is_lost = False  # it may still arrive
            yield crossing

    def _take(self) -> Iterator[Sighting]:
        """Yields what has come; waits for a moment if nothing has."""
        try:
            yield self._seen.get(timeout=POLL_S)
            while True:
                yield self._seen.get_nowait()
        except queue.Empty:
            return

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
        for process in self._running.values():
            process.wait(5)


def pipe(site: Site, wires: Wiring, pids: Mapping[str, int], link: str) -> int:
    """Writes what crosses a link to standard output as pcap, as its first end sees it, until the reader goes away.

    Returns tcpdump's exit status.
    """
    end = wires.link(link).ends[0]
    command = ["mnexec", "-a", str(pids[end.node]), *TCPDUMP, "--immediate-mode", "-i", end.interface, "-w", "-"]
    return subprocess.run(command, env=site.environment, stdin=subprocess.DEVNULL, check=False).returncode
