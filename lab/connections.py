"""Long-lived TCP connections from the clients through a VIP, with the exact fate of every one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from .timeline import Timeline
from .traffic.costs import Cost, cost_of, cpu_of
from .traffic.worker import Worker, Workers
from .waiting import wait_until

if TYPE_CHECKING:
    from .nodes import LabNode

STALL_S = 10.0  # longer than the hold time and TCP's retransmission after it: whoever is silent for so long is lost
SHORTEST_INTERVAL_S = 0.1
MESSAGES_PER_S = 4000  # of all connections together: what leaves a small machine time for the rest of the lab

Processes = Callable[[], Mapping[str, Iterable[int]]]  # process numbers of who else works for connections


@dataclass(frozen=True, slots=True)
class Connection:
    """What is known of one held connection."""

    client: str
    number: int
    fate: str  # alive, refused, reset, garbled, stalled or closed
    endpoint: str  # who answers: the endpoint's name
    messages: int  # sent so far
    longest_silence_ms: float  # between two answers, since the last mark
    opened_at: float = 0.0  # of the first answer; of the attempt, if there was none; monotonic seconds
    answered_at: float = 0.0  # of the last answer, in monotonic seconds
    port: int = 0  # the client's, by which its flow is known; 0 if it never had one

    @property
    def name(self) -> str:
        """Returns who this is among all connections of the lab."""
        return f"{self.client}/{self.number}"

    @property
    def is_broken(self) -> bool:
        """Says whether it ended otherwise than by our closing it."""
        return self.fate not in ("alive", "closed")


class Row(NamedTuple):
    """A connection as its holder reports it; times are monotonic seconds."""

    number: int
    fate: str
    endpoint: str
    messages: int
    longest_silence_s: float
    answered_at: float
    answer_was_asked_at: float  # when the question was asked that was answered last
    opened_at: float = 0.0
    port: int = 0  # the client's

    def seen(self, client: str, now: float, stall_s: float) -> Connection:
        """Returns what is to be said of it now: an answer that does not come is a silence, and in the end a stall."""
        silence_s = now - self.answered_at
        is_alive = self.fate in ("alive", "opening")
        longest_s = max(self.longest_silence_s, silence_s) if is_alive else self.longest_silence_s
        fate = "stalled" if self.fate == "alive" and silence_s > stall_s else self.fate
        times = round(longest_s * 1e3, 1), self.opened_at, self.answered_at
        return Connection(client, self.number, fate, self.endpoint, self.messages, *times, self.port)


class Connections:
    """`count` connections spread evenly over clients; a context manager that closes them at its end.

    Each rests `interval_s` between messages. Unless that is given, the more there are the longer they rest, so that all
    together send no more than `MESSAGES_PER_S`. With `replaces`, another is opened for each that breaks, as clients do
    who try again: about as many as at first live at any time.
    """

    def __init__(
        self,
        clients: Sequence[LabNode],
        address: str,
        port: int,
        count: int,
        interval_s: float | None = None,
        *,
        replaces: bool = False,
        timeline: Timeline | None = None,
        processes: Processes = dict,
    ) -> None:
        self._clients = list(clients)
        self._wanted_interval_s, self._interval_s, self._count = interval_s, SHORTEST_INTERVAL_S, 0
        self._rows: dict[str, dict[int, Row]] = {client.name: {} for client in clients}
        self._timeline, self._processes = timeline or Timeline(), processes
        self._closed_at: float | None = None
        options = ("--address", address, "--port", str(port), *(["--replace", str(STALL_S)] if replaces else []))
        self._holders = Workers({node.name: Worker(node, "holder", "lab.holder", *options) for node in clients})
        self._cpu_before = {pid: s for pids in processes().values() for pid, s in cpu_of(pids).items()}
        self._costs: dict[str, Cost] = {}
        self.open(count)
        self._timeline.happened("traffic", f"{count} connections", address, port=port, interval_s=self._interval_s)

    def open(self, count: int) -> None:
        """Opens `count` more; returns when each is open, or has failed to."""
        self._count += count
        self._interval_s = self._wanted_interval_s or max(SHORTEST_INTERVAL_S, self._count / MESSAGES_PER_S)
        share, rest = divmod(count, len(self._clients))
        shares = {client.name: share + (i < rest) for i, client in enumerate(self._clients)}
        self._tell({client: f"open {number} {self._interval_s}" for client, number in shares.items()})

    def mark(self) -> None:
        """Begins a new measurement of the longest silence."""
        self._tell_all("mark")

    def all(self) -> list[Connection]:
        """Returns every connection as it is now, or as it was when the connections were closed."""
        self._refresh()
        now, stall_s = self._closed_at or time.monotonic(), self._stall_s
        return [row.seen(client, now, stall_s) for client, rows in self._rows.items() for row in rows.values()]

    @property
    def _stall_s(self) -> float:
        return STALL_S + self._interval_s

    def _refresh(self) -> None:
        if self._holders:
            self._tell_all("report")

    @property
    def broken(self) -> int:
        """Returns how many have broken so far."""
        return sum(connection.is_broken for connection in self.all())

    def wait_settled(self, timeout_s: float = 2 * STALL_S) -> None:
        """Waits until every connection has been asked and answered since this call, or is known to have ended."""
        since = time.monotonic()
        self._wait_for(lambda row: row.answer_was_asked_at >= since, timeout_s + 2 * self._interval_s)

    def wait_answered(self, messages: int, timeout_s: float) -> None:
        """Waits until every connection has sent `messages` and had them answered, or is known to have ended."""
        self._wait_for(lambda row: row.messages > messages, timeout_s)

    def _wait_for(self, answered: Callable[[Row], bool], timeout_s: float) -> None:
        waiting = [(client, number) for client, rows in self._rows.items() for number in rows]

        def missing() -> str:
            self._refresh()
            now = time.monotonic()
            waiting[:] = [key for key in waiting if not self._is_done(self._rows[key[0]][key[1]], answered, now)]
            client, number = waiting[0] if waiting else ("", 0)
            return f"{len(waiting)} connections without an answer, such as {client}/{number}" if waiting else ""

        wait_until(missing, timeout_s, "an answer on every connection")

    def _is_done(self, row: Row, answered: Callable[[Row], bool], now: float) -> bool:
        return row.fate != "alive" or answered(row) or now - row.answered_at > self._stall_s

    def costs(self) -> dict[str, Cost]:
        """Returns what holders, servers and forwarders use: memory now, processor time since the connections began."""
        if self._holders:
            pids = {"holders": self._holders.pids, **self._processes()}
            self._costs = {name: cost_of(numbers, self._cpu_before) for name, numbers in pids.items()}
        return dict(self._costs)

    def report(self) -> str:
        """Returns what happened, in a few lines."""
        connections = self.all()
        fates, endpoints = Counter(c.fate for c in connections), Counter(c.endpoint for c in connections)
        broken = [
            f"  {c.name}: {c.fate} after {c.messages} messages with {c.endpoint}" for c in connections if c.is_broken
        ]
        silence, messages = (
            max((c.longest_silence_ms for c in connections), default=0.0),
            sum(c.messages for c in connections),
        )
        lines = [
            f"{len(connections)} connections: {_counts(fates)}; longest silence {silence:.0f} ms; {messages} messages, "
            f"one every {self._interval_s:g} s on each",
            f"endpoints: {_counts(endpoints)}",
            f"cost: {'; '.join(f'{name} {cost}' for name, cost in self.costs().items())}",
            *broken[:20],
        ]
        return "\n".join(lines + ([f"  and {len(broken) - 20} more"] if len(broken) > 20 else []))

    def close(self) -> None:
        """Closes all connections; their last report stays."""
        if not self._holders:
            return
        self.costs()
        self._tell_all("close")
        self._end()
        self._holders.close()

    stop = close

    def abandon(self) -> None:
        """Ends the traffic processes at once, for a lab that goes away."""
        if self._holders:
            self._end()
            self._holders.abandon()

    def _end(self) -> None:
        self._closed_at = time.monotonic()
        self._timeline.happened("traffic", f"{self._count} connections end")

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell_all(self, command: str) -> None:
        self._tell(dict.fromkeys(self._rows, command))

    def _tell(self, commands: Mapping[str, str]) -> None:
        """Sends commands to all holders at once, and takes in what has changed."""
        for client, rows in self._holders.ask_each(commands).items():
            self._rows[client].update({row[0]: Row(*row) for row in rows})


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name or 'nobody'}" for name, count in sorted(counter.items()))
