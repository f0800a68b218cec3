"""Serves metrics over HTTP, `GET /metrics` in Prometheus's text format, on addresses of this machine's own.

It must not be felt by packets. It has threads of its own, and since all threads of a process take turns at one
interpreter, it gives way every few hundred samples: a scrape of ten thousand backends takes longer for it, and holds
up nobody for more than about a millisecond.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import Sample

from ..errors import PlatformError
from ..flow import Address

Collect = Callable[[], Iterable[Metric]]

PATH = "/metrics"
CLIENT_SILENCE_S = 5.0
SAMPLES_AT_ONCE = 200  # about a millisecond's work
PAUSE_S = 0.0002  # long enough for a thread that waits for the interpreter to take it


class Exposition:
    """Writes down what a daemon counts, and what its process uses."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect
        self._process = ProcessCollector(registry=None)
        self._writing = threading.Lock()  # however many ask: one at a time

    def text(self) -> bytes:
        """Returns all metrics as they are now."""
        with self._writing:
            return generate_latest(cast(CollectorRegistry, self))

    def collect(self) -> Iterator[Metric]:
        """Yields all families; for `generate_latest`."""
        for family in self._collect():
            family.samples = cast(Any, _giving_way(family.samples))
            yield family
        yield from self._process.collect()


def _giving_way(samples: Iterable[Sample]) -> Iterator[Sample]:
    for number, sample in enumerate(samples, 1):
        yield sample
        if number % SAMPLES_AT_ONCE == 0:
            time.sleep(PAUSE_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_SILENCE_S
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == PATH:
            self._reply(200, CONTENT_TYPE_LATEST, self.server.exposition.text())
        else:
            self._reply(404, "text/plain; charset=utf-8", f"no {self.path!r}; there is {PATH}\n".encode())

    def _reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not logged: they come every few seconds, for ever."""


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, address: Address, port: int, exposition: Exposition) -> None:
        self.address_family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self.exposition = exposition
        super().__init__((str(address), port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Passes over a client that went away, or fell silent, before its answer."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class MetricsServer:
    """Serves an exposition on a port of some addresses, and of no others, until it is closed."""

    def __init__(self, addresses: Sequence[Address], port: int, exposition: Exposition) -> None:
        """Opens the sockets, none if the port is 0; PlatformError if it cannot."""
        self._servers: list[_Server] = []
        if not port:
            return
        for address in addresses:
            try:
                self._servers.append(_Server(address, port, exposition))
            except OSError as error:
                self.close()
                shown = address if address.version == 4 else f"[{address}]"
                why = error.strerror or error
                raise PlatformError(
                    f"cannot serve metrics on {shown}:{port}: {why}; set metrics.port to another port, or 0 for none"
                ) from None

    def start(self) -> None:
        """Begins to answer."""
        for server in self._servers:
            threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Gives the port back."""
        for server in self._servers:
            server.server_close()
