"""Opens new TCP connections at a steady rate, has the numbered service answer once on each, and ends it by a reset.

A reset, because ports would run out if each connection lingered in TIME_WAIT.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from typing import Any

from ..times import Times
from .obeying import main
from .pace import Pace

PATIENCE_S = 5.0  # a connection that is not answered for so long has failed; TCP sends its SYN again after 1 and 3 s
NO_LINGER = struct.pack("ii", 1, 0)


class Visit(asyncio.Protocol):
    """One connection: a line there, a line back."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        transport.write(b"1\n")

    def data_received(self, data: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(data.split()[0].decode("ascii", "replace"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("it ended without an answer"))


class Churn:
    """`rate_per_s` new connections a second to one address."""

    def __init__(self, address: str, port: int, rate_per_s: float, seconds: float) -> None:
        self._target = (address, port)
        self._rate_per_s, self._seconds = rate_per_s, seconds
        self._asked = self._sent = self._received = 0
        self._took_s = 0.0
        self._failures: Counter[str] = Counter()
        self._endpoints: Counter[str] = Counter()
        self._times = Times()

    def send(self, ended: threading.Event) -> None:
        """Opens connections until the time is over, and waits for those under way."""
        asyncio.run(self._send(ended))

    async def _send(self, ended: threading.Event) -> None:
        began = now = time.monotonic()
        pace = Pace(self._rate_per_s, self._seconds, now)
        under_way: set[asyncio.Task[None]] = set()
        while not ended.is_set() and not pace.over(now):
            for _ in range(pace.due(now)):
                visit = asyncio.create_task(self._visit())
                under_way.add(visit)
                visit.add_done_callback(under_way.discard)
            await asyncio.sleep(pace.rest_s(time.monotonic()))
            now = time.monotonic()
            self._asked, self._took_s = pace.asked(now), now - began
        if not ended.is_set():
            self._asked, self._took_s = pace.total, self._seconds
        await asyncio.gather(*under_way)

    async def _visit(self) -> None:
        """Opens a connection, and counts what becomes of it."""
        began, visit = time.monotonic(), Visit()
        self._sent += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.get_running_loop().create_connection(lambda: visit, *self._target)
                endpoint = await visit.answer
        except TimeoutError:
            self._failures["no answer"] += 1
        except OSError as error:
            self._failures[error.strerror or str(error)] += 1
        else:
            self._received += 1
            self._endpoints[endpoint] += 1
            self._times.add(time.monotonic() - began)
        finally:
            if visit.transport is not None:
                visit.transport.abort()

    def report(self) -> dict[str, Any]:
        """Returns the counts so far."""
        counts = {"asked": self._asked, "sent": self._sent, "received": self._received, "seconds": self._took_s}
        tables = {"failures": dict(self._failures), "endpoints": dict(self._endpoints)}
        return {**counts, **tables, "times": self._times.document()}


if __name__ == "__main__":
    main(Churn)
