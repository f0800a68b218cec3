"""Flows of published sizes: TCP connections that come when `flow_sizes` says, each of which fetches so many bytes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

from ..flow_sizes import CLASSES, DISTRIBUTIONS, Flow, flows, size_class
from ..times import Times
from .obeying import main

PIECE_BYTES = 1 << 18
CONNECT_TIMEOUT_S, SILENCE_S = 5.0, 10.0  # after so long without a byte a flow has failed


class FlowMix:
    """Flows to one address; `largest` cuts the distribution off. After `seconds` those under way get `grace_s` more."""

    def __init__(
        self,
        address: str,
        port: int,
        distribution: str,
        load_mbit: float,
        seconds: float,
        largest: int,
        grace_s: float,
        seed: int,
    ) -> None:
        sizes = DISTRIBUTIONS[distribution].cut(largest)
        self._target, self._seconds, self._grace_s = (address, port), seconds, grace_s
        self._flows = list(flows(sizes, load_mbit * 1e6, seconds, seed))
        self._times = {name: Times() for name in CLASSES}
        self._failures: Counter[str] = Counter()
        self._sent = self._received = self._bytes = self._bytes_asked = 0
        self._began = self._took_s = self._latest_s = 0.0

    def send(self, ended: threading.Event) -> None:
        """Begins every flow when it is due, and waits for those under way."""
        asyncio.run(self._send(ended))

    async def _send(self, ended: threading.Event) -> None:
        self._began = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        for flow in self._flows:
            while (early_s := self._began + flow.at_s - time.monotonic()) > 0 and not ended.is_set():
                await asyncio.sleep(min(early_s, 0.1))
            if ended.is_set():
                break
            self._latest_s = max(self._latest_s, -early_s)
            task = asyncio.create_task(self._fetch(flow))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        give_up = self._began + self._seconds + self._grace_s
        while under_way and not ended.is_set() and time.monotonic() < give_up:
            await asyncio.wait(under_way, timeout=0.1)
        unfinished = list(under_way)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _fetch(self, flow: Flow) -> None:
        """Fetches the bytes of one flow over a connection of its own, and counts what becomes of it."""
        began, writer = time.monotonic(), None
        self._sent += 1
        self._bytes_asked += flow.size
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(*self._target, limit=PIECE_BYTES)
            head = f"GET /bytes/{flow.size} HTTP/1.1\r\nHost: {self._target[0]}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            await self._read(reader, flow.size)
        except TimeoutError:
            self._failures["silence"] += 1
        except (OSError, EOFError, ValueError) as error:
            self._failures[str(error) or type(error).__name__] += 1
        else:
            self._received += 1
            self._times[size_class(flow.size)].add(time.monotonic() - began)
        finally:
            self._took_s = time.monotonic() - self._began
            if writer is not None:
                writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, size: int) -> None:
        """Reads an answer with so many bytes; ValueError for another answer, EOFError if it ends early."""
        async with asyncio.timeout(SILENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0] or b"content-length: %d\r\n" % size not in head.lower():
            raise ValueError(head.partition(b"\r\n")[0].decode("ascii", "replace"))
        while size > 0:
            async with asyncio.timeout(SILENCE_S):
                piece = await reader.read(min(size, PIECE_BYTES))
            if not piece:
                raise EOFError("the connection ended early")
            size -= len(piece)
            self._bytes += len(piece)

    def report(self) -> dict[str, Any]:
        """Returns the counts so far."""
        now_s = time.monotonic() - self._began if self._began else 0.0
        return {
            "asked": sum(flow.at_s <= now_s for flow in self._flows),
            "received": self._received,
            "sent": self._sent,
            "bytes": self._bytes,
            "bytes_asked": self._bytes_asked,
            "failures": dict(self._failures),
            "times": {name: times.document() for name, times in self._times.items()},
            "latest_ms": round(self._latest_s * 1e3, 3),
            "seconds": self._took_s,
        }


if __name__ == "__main__":
    main(FlowMix)
