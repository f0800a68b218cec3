"""Sends numbered datagrams of many UDP flows at a steady rate, and follows the answers of the numbered service.

Each flow is a socket with a port of its own. A datagram says flow, number and time, and is filled up to its size; the
service sends it back behind the endpoint's name.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import Counter
from typing import Any

from ..sequence import Sequence
from ..times import Times
from .obeying import main
from .pace import Pace

GRACE_S = 1.0  # how long answers are waited for after the last datagram
MAX_DATAGRAM_BYTES = 1 << 16
RECEIVE_BUFFER_BYTES = 1 << 20


class Datagrams:
    """`flows` flows to one address that send `rate_pps` datagrams a second together, each in its turn."""

    def __init__(
        self, address: str, port: int, flows: int, first_port: int, rate_pps: float, seconds: float, size_bytes: int
    ) -> None:
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._rate_pps, self._seconds, self._size_bytes = rate_pps, seconds, size_bytes
        self._sockets = [self._open((address, port), first_port and first_port + flow) for flow in range(flows)]
        self._flows = [Sequence() for _ in range(flows)]
        self._asked, self._began, self._took_s = 0, 0.0, 0.0
        self._strange = self._refused = 0
        self._endpoints: Counter[str] = Counter()
        self._times = Times()

    def _open(self, target: tuple[str, int], port: int) -> socket.socket:
        flow = socket.socket(self._family, socket.SOCK_DGRAM)
        flow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        flow.bind(("", port))
        flow.connect(target)
        flow.setblocking(False)
        return flow

    def send(self, ended: threading.Event) -> None:
        """Sends until the time is over, then waits for answers that are still under way."""
        poll = select.epoll()
        by_file = {flow.fileno(): number for number, flow in enumerate(self._sockets)}
        for file in by_file:
            poll.register(file, select.EPOLLIN)
        self._began = now = time.monotonic()
        pace, turn = Pace(self._rate_pps, self._seconds, now), 0
        while not ended.is_set() and not pace.over(now):
            for _ in range(pace.due(now)):
                self._send_one(turn % len(self._flows))
                turn += 1
            self._receive(poll, by_file, pace.rest_s(time.monotonic()))
            now = time.monotonic()
            self._asked, self._took_s = pace.asked(now), now - self._began
        if not ended.is_set():
            self._asked, self._took_s = pace.total, self._seconds
        give_up = time.monotonic() + GRACE_S
        while any(flow.lost for flow in self._flows) and (left := give_up - time.monotonic()) > 0:
            self._receive(poll, by_file, left)

    def _send_one(self, flow: int) -> None:
        sequence = self._flows[flow]
        text = b"%d %d %d " % (flow, sequence.sent, time.monotonic_ns())
        try:
            self._sockets[flow].send(text.ljust(self._size_bytes, b"."))
        except OSError:  # no room in the queue, or nobody at home (ICMP): it was not sent
            self._refused += 1
        else:
            sequence.send()

    def _receive(self, poll: select.epoll, by_file: dict[int, int], timeout_s: float) -> None:
        """Takes in the answers that have come, or come within a time."""
        for file, _ in poll.poll(timeout_s):
            flow = by_file[file]
            with contextlib.suppress(OSError):  # nothing more there, or an ICMP error: no answer
                while True:
                    self._take(flow, self._sockets[flow].recv(MAX_DATAGRAM_BYTES))

    def _take(self, flow: int, data: bytes) -> None:
        """Takes in an answer; what no endpoint would send back is counted as strange."""
        words = data[:80].split(maxsplit=4)
        numbers = [int(word) for word in words[1:4] if word.isdigit()]
        if len(numbers) != 3 or numbers[0] != flow or numbers[1] >= self._flows[flow].sent:
            self._strange += 1
            return
        endpoint = words[0].decode("ascii", "replace")
        if self._flows[flow].answer(numbers[1], endpoint):
            self._endpoints[endpoint] += 1
            self._times.add((time.monotonic_ns() - numbers[2]) / 1e9)

    def report(self) -> dict[str, Any]:
        """Returns the counts of all flows together, and what the merged report needs."""
        flows = self._flows
        received = sum(flow.answered for flow in flows)  # before `sent`: both grow meanwhile
        sent = sum(flow.sent for flow in flows)
        return {
            "asked": self._asked,
            "sent": sent,
            "received": received,
            "lost": sent - received,
            "duplicates": sum(flow.duplicates for flow in flows),
            "reordered": sum(flow.reordered for flow in flows),
            "endpoint_changes": sum(flow.endpoint_changes for flow in flows),
            "moved_flows": sum(flow.endpoint_changes > 0 for flow in flows),
            "strange": self._strange,
            "refused": self._refused,
            "endpoints": dict(self._endpoints),
            "times": self._times.document(),
            "seconds": self._took_s,
        }


if __name__ == "__main__":
    main(Datagrams)
