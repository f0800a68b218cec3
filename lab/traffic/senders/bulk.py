"""Bulk transfer over long-lived TCP connections, one direction: blocks by HTTP, one after another on each connection.

Going up, the endpoint says how much of each block arrived and its SHA-256; coming down, the client computes it.
"""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections import Counter
from typing import Any

from ...servers import BLOCK
from .obeying import main

BLOCK_BYTES = 1 << 22  # the wait for its answer is short next to the time that it takes
TIMEOUT_S = 10.0
BODY = BLOCK * (BLOCK_BYTES // len(BLOCK))
DIGEST = hashlib.sha256(BODY).hexdigest()


class Bulk:
    """`streams` connections to one address for a time."""

    def __init__(self, address: str, port: int, streams: int, seconds: float, direction: str) -> None:
        self._target, self._streams, self._seconds = (address, port), streams, seconds
        self._exchange = {"up": self._put, "down": self._get}[direction]
        self._sent = self._received = self._damaged = 0
        self._began = self._took_s = 0.0
        self._failures: Counter[str] = Counter()
        self._endpoints: Counter[str] = Counter()
        self._counting = threading.Lock()

    def send(self, ended: threading.Event) -> None:
        """Transfers until the time is over and the last blocks are answered."""
        self._began = time.monotonic()
        streams = [threading.Thread(target=self._stream, args=(ended,), daemon=True) for _ in range(self._streams)]
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.join()

    def _stream(self, ended: threading.Event) -> None:
        connection = http.client.HTTPConnection(*self._target, timeout=TIMEOUT_S)
        try:
            connection.connect()
            connection.auto_open = 0  # a connection that has broken has broken
            while not ended.is_set() and time.monotonic() - self._began < self._seconds:
                self._exchange(connection)
        except (OSError, http.client.HTTPException) as error:
            self._count(failures=[str(error) or type(error).__name__])
        finally:
            connection.close()

    def _put(self, connection: http.client.HTTPConnection) -> None:
        connection.request("PUT", "/bulk", BODY)
        with self._counting:
            self._sent += BLOCK_BYTES
        endpoint, *words = connection.getresponse().read().decode("ascii", "replace").split()
        self._arrived(endpoint, int(words[1]), words[-1])

    def _get(self, connection: http.client.HTTPConnection) -> None:
        connection.request("GET", f"/bytes/{BLOCK_BYTES}")
        body = connection.getresponse().read()
        with self._counting:
            self._sent += BLOCK_BYTES
        self._arrived("", len(body), hashlib.sha256(body).hexdigest())

    def _arrived(self, endpoint: str, size: int, digest: str) -> None:
        with self._counting:
            self._received += size
            self._damaged += digest != DIGEST
            self._endpoints[endpoint] += 1
            self._took_s = time.monotonic() - self._began

    def _count(self, failures: list[str]) -> None:
        with self._counting:
            self._failures.update(failures)

    def report(self) -> dict[str, Any]:
        """Returns the counts so far."""
        with self._counting:
            counts = {"sent": self._sent, "received": self._received, "damaged": self._damaged, "seconds": self._took_s}
            return {**counts, "failures": dict(self._failures), "endpoints": dict(self._endpoints)}


if __name__ == "__main__":
    main(Bulk)
