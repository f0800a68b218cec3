"""What every engine does, however it moves packets: one contract, and one suite of tests for all of them."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .. import conntrack
from ..conntrack import DEFAULT_CAPACITY, DEFAULT_IDLE_TIMEOUT_S
from ..documents import Occupied
from ..forwarding import ICMP_ERRORS_PER_S, ConnectionTable, Forwarder, Statistics
from ..fragments import DEFAULT_LIMITS, Limits
from ..trace import REPORTS_PER_S
from ..vips import VipMap


@dataclass(frozen=True)
class Options:
    """How an engine is to work."""

    interface: str
    own: bytes | tuple[bytes, ...]  # the Maglev's addresses, 16 bytes each, one a family
    capacity: int = DEFAULT_CAPACITY  # of each packet thread's connection table, in entries; 0 switches it off
    idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S
    threads: int = 1
    busy_poll: bool = False  # whether packet threads ask for packets without end, instead of waiting for them
    huge_pages: bool = False  # whether connection tables take all their memory at once, in huge pages
    fragment_limits: Limits = DEFAULT_LIMITS
    icmp_errors_per_s: float = ICMP_ERRORS_PER_S
    name: str = ""  # the Maglev's, in reports of tracer packets
    trace_reports_per_s: float = REPORTS_PER_S
    most_per_source: int | None = None  # entries of one source in each connection table; None: all

    def table(self) -> conntrack.ConnectionTable:
        """Returns a connection table for these options, as the reference has it."""
        key = secrets.randbits(64)  # or whoever knows it chooses with whom to share a bucket
        return conntrack.ConnectionTable(self.capacity, self.idle_timeout_s, self.most_per_source, key)

    def reference(self, connections: ConnectionTable) -> Forwarder:
        """Returns the reference for these options, which remembers connections where it is told to."""
        return Forwarder(
            self.own, connections, fragment_limits=self.fragment_limits, icmp_errors_per_s=self.icmp_errors_per_s,
            name=self.name, trace_reports_per_s=self.trace_reports_per_s,
        )  # fmt: skip


class Table(Occupied, Protocol):
    """What can be asked of a connection table."""

    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def expired(self) -> int: ...


class Engine(ABC):
    """Moves the packets of one interface: those to VIPs go back out in GRE. Made by `engine.choice.open_engine`.

    VIPs and next hops may be exchanged at any time, by any thread: a packet meets the old ones or the new ones, and
    none is lost over it.
    """

    name: str
    detail: str = ""  # how exactly it works here, for people
    passed_over: tuple[str, ...] = ()  # faster engines that did not work here, and why

    @abstractmethod
    def adopt(self, vips: VipMap) -> None:
        """Exchanges the map of VIPs."""

    @abstractmethod
    def follow(self, next_hops: Mapping[bytes, bytes]) -> None:
        """Exchanges the Ethernet headers (14 bytes) that lead to each endpoint (16 bytes)."""

    @abstractmethod
    def run(self) -> None:
        """Forwards packets until `stop` is called, or a signal handler raises."""

    @abstractmethod
    def stop(self) -> None:
        """Makes `run` return soon; any thread may call it."""

    @abstractmethod
    def close(self) -> None:
        """Gives back what the engine holds of the kernel, once `run` has returned."""

    @abstractmethod
    def statistics(self) -> Statistics:
        """Returns what became of all packets so far."""

    @property
    @abstractmethod
    def beats(self) -> Sequence[int]:
        """Returns, for each packet thread, a number that does not stay the same for half a second while it works."""

    @property
    def batch_sizes(self) -> Mapping[int, int]:
        """Returns how many batches there were, by the power of two that their size in packets reached; {} if none."""
        return {}

    @property
    @abstractmethod
    def tables(self) -> Sequence[Table]:
        """Returns the connection tables: one for each packet thread."""
