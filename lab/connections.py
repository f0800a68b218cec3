"""Long-lived TCP connections from the clients through a VIP, with the exact fate of every one."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import LabError
from .nodes import project_python
from .waiting import wait_until

if TYPE_CHECKING:
    from .nodes import LabNode

STALL_S = 10.0  # longer than the hold time and TCP's retransmission after it: whoever is silent for so long is lost
DEFAULT_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Connection:
    """What is known of one held connection."""

    client: str
    number: int
    fate: str  # alive, refused, reset, garbled, stalled or closed
    endpoint: str  # who answers: the endpoint's name
    messages: int  # sent so far
    longest_silence_ms: float  # between two answers, since the last mark
    last_answer_ms: float  # ago

    @property
    def name(self) -> str:
        """Returns who this is among all connections of the lab."""
        return f"{self.client}/{self.number}"

    @property
    def is_broken(self) -> bool:
        """Says whether it ended otherwise than by our closing it."""
        return self.fate not in ("alive", "closed")


class Connections:
    """`count` connections spread evenly over clients; a context manager that closes them at its end."""

    def __init__(
        self, clients: Sequence[LabNode], address: str, port: int, count: int, interval_s: float = DEFAULT_INTERVAL_S
    ) -> None:
        self._clients = list(clients)
        self._last: dict[str, list[Connection]] = {}
        self._speaking = threading.Lock()  # a dashboard asks while the lab does
        self._holders = {client.name: _start_holder(client, address, port, interval_s) for client in clients}
        self.open(count)

    def open(self, count: int) -> None:
        """Opens `count` more; returns when each is open, or has failed to."""
        share, rest = divmod(count, len(self._clients))
        self._tell({client.name: f"open {share + (i < rest)}" for i, client in enumerate(self._clients)})

    def mark(self) -> None:
        """Begins a new measurement of the longest silence."""
        self._tell_all("mark")

    def all(self) -> list[Connection]:
        """Returns every connection as it is now, or as it was when the connections were closed."""
        if self._holders:
            self._tell_all("report")
        return [connection for held in self._last.values() for connection in held]

    @property
    def broken(self) -> int:
        """Returns how many have broken so far."""
        return sum(connection.is_broken for connection in self.all())

    def wait_settled(self, timeout_s: float = 2 * STALL_S) -> None:
        """Waits until every connection has been asked and answered since this call, or is known to have ended."""
        before = {connection.name: connection.messages for connection in self.all()}
        self._wait_for(lambda connection: connection.messages >= before[connection.name] + 2, timeout_s)

    def wait_answered(self, messages: int, timeout_s: float) -> None:
        """Waits until every connection has sent `messages` and had them answered, or is known to have ended."""
        self._wait_for(lambda connection: connection.messages > messages, timeout_s)

    def _wait_for(self, answered: Callable[[Connection], bool], timeout_s: float) -> None:
        def missing() -> str:
            waiting = [
                connection.name for connection in self.all() if connection.fate == "alive" and not answered(connection)
            ]
            return f"{len(waiting)} connections without an answer, such as {waiting[0]}" if waiting else ""

        wait_until(missing, timeout_s, "an answer on every connection")

    def report(self) -> str:
        """Returns what happened, in a few lines."""
        connections = self.all()
        fates, endpoints = Counter(c.fate for c in connections), Counter(c.endpoint for c in connections)
        broken = [
            f"  {c.name}: {c.fate} after {c.messages} messages with {c.endpoint}" for c in connections if c.is_broken
        ]
        silence = max((c.longest_silence_ms for c in connections), default=0.0)
        lines = [
            f"{len(connections)} connections: {_counts(fates)}; longest silence {silence:.0f} ms",
            f"endpoints: {_counts(endpoints)}",
            *broken[:20],
        ]
        return "\n".join(lines + ([f"  and {len(broken) - 20} more"] if len(broken) > 20 else []))

    def close(self) -> None:
        """Closes all connections; their last report stays."""
        if self._holders:
            self._tell_all("close")
        holders, self._holders = self._holders, {}
        for holder in holders.values():
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait(5)

    def abandon(self) -> None:
        """Ends the traffic processes at once, for a lab that goes away."""
        holders, self._holders = self._holders, {}
        for holder in holders.values():
            holder.kill()
            holder.communicate()

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell_all(self, command: str) -> None:
        self._tell(dict.fromkeys(self._holders, command))

    def _tell(self, commands: Mapping[str, str]) -> None:
        """Sends commands to all holders at once, and takes in what they report."""
        with self._speaking:
            self._exchange(commands)

    def _exchange(self, commands: Mapping[str, str]) -> None:
        for client, command in commands.items():
            stream = self._holders[client].stdin
            assert stream is not None
            stream.write(command.encode() + b"\n")
            stream.flush()
        for client in commands:
            stream = self._holders[client].stdout
            assert stream is not None
            self._last[client] = _parse(client, stream.readline())


def _start_holder(client: LabNode, address: str, port: int, interval_s: float) -> subprocess.Popen[bytes]:
    options = ["--address", address, "--port", str(port), "--interval", str(interval_s), "--stall", str(STALL_S)]
    return client.start_piped("holder", [project_python(), "-m", "lab.holder", *options])


def _parse(client: str, line: bytes) -> list[Connection]:
    if not line:
        raise LabError(f"the traffic process on {client} has ended: see its holder.log")
    rows: list[list[Any]] = json.loads(line)
    return [Connection(client, *row) for row in rows]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name or 'nobody'}" for name, count in sorted(counter.items()))
