"""What an endpoint serves: HTTP on port 80, and on port 7 a service that keeps connections open and says who it is.

    GET  /             who answers, and whom it answers
    GET  /healthz      for health checks
    GET  /bytes/SIZE   SIZE bytes (K, M, G allowed), the same from every endpoint
    PUT, POST  any     how many bytes arrived, and their SHA-256

The numbered service answers each line with its own name and that line, over TCP, and each datagram in the same way
over UDP. Whoever holds a connection to it knows at every message whether it still talks to the same endpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import random
import socket
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from .traffic.senders.obeying import allow_many_files

HTTP_PORT, ECHO_PORT = 80, 7
MAX_LINE_BYTES = 1 << 16
MAX_DATAGRAM_BYTES, MAX_ANSWER_BYTES = 1 << 16, 65507  # what UDP over IPv4 can carry
ANCILLARY_BYTES, ADDRESS_BYTES = 128, 16  # of struct in6_pktinfo, which ends with the interface
BLOCK = random.Random(2016).randbytes(1 << 16)
UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
MAX_BYTES = 10 * UNITS["G"]
HEALTHY = "ok\n"
HEALTH_CHECK, LAST_REQUEST, PEEKED_BYTES = b"GET /healthz ", b"\r\nConnection: close\r\n", 2048
ALL_IS_WELL = "\r\n".join(
    ["HTTP/1.1 200 OK", "Content-Type: text/plain", f"Content-Length: {len(HEALTHY)}", "Connection: close", "", HEALTHY]
).encode()
ONCE_IT_SPEAKS_S = 1  # a client that says nothing is accepted after so long; see `Server`


class Handler(BaseHTTPRequestHandler):
    """Answers HTTP requests as the endpoint that the server is named for."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else, on a kept connection, a body waits 40 ms for the head's acknowledgement
    wbufsize = 1 << 16  # head and a short body in one packet
    server: Server

    def do_GET(self) -> None:
        if self.path.startswith("/bytes/"):
            self._send_bytes(self.path.removeprefix("/bytes/"))
        elif self.path == "/healthz":
            self._reply(HEALTHY)
        else:
            self._reply(f"{self.server.name} answers {self.client_address[0]}\n")

    def do_PUT(self) -> None:
        digest, left = hashlib.sha256(), int(self.headers.get("Content-Length") or 0)
        total = left
        while left and (piece := self.rfile.read(min(left, len(BLOCK)))):
            digest.update(piece)
            left -= len(piece)
        self._reply(f"{self.server.name} received {total - left} bytes, SHA-256 {digest.hexdigest()}\n")

    do_POST = do_PUT

    def _send_bytes(self, size: str) -> None:
        number = parse_size(size)
        if number is None:
            self._reply(f"{size!r} is not a size; allowed: up to 10G, such as 512, 64K, 100M\n", 400)
            return
        self._head(200, "application/octet-stream", number)
        while number > 0:
            number -= self.wfile.write(BLOCK[:number])

    def _reply(self, text: str, status: int = 200) -> None:
        self._head(status, "text/plain", len(text))
        self.wfile.write(text.encode())

    def _head(self, status: int, content_type: str, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(size))
        if self.close_connection:
            self.send_header("Connection", "close")  # RFC 9112 §9.6: or a client may try to use it again
        elif self.request_version == "HTTP/1.0":
            self.send_header("Connection", "keep-alive")  # RFC 9112 §C.2.2: such a client would wait for the end
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged: health checks come twice a second from every Maglev."""


class Server(ThreadingHTTPServer):
    """The HTTP server of one endpoint, for one family of addresses.

    Health checks are answered at once, without a thread or a parser for each: in a large rack they are all that an idle
    endpoint does. The kernel hands a connection over when its request is there, and not before (TCP_DEFER_ACCEPT,
    tcp(7)), as it does for Apache.
    """

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, name: str, port: int, family: socket.AddressFamily) -> None:
        self.name, self.address_family = name, family
        super().__init__(("", port), Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a server of its own
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, ONCE_IT_SPEAKS_S)
        TCPServer.server_bind(self)  # HTTPServer's asks a DNS, which no node reaches, who it is

    def process_request(self, request: Any, client_address: Any) -> None:
        try:
            said = request.recv(PEEKED_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:  # it has said nothing yet, or has gone again
            said = b""
        if said.startswith(HEALTH_CHECK) and said.endswith(b"\r\n\r\n") and LAST_REQUEST in said:
            with contextlib.suppress(OSError):
                request.recv(PEEKED_BYTES)  # what is left unread would have closing reset the connection
                request.sendall(ALL_IS_WELL)
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in mid-answer is no news."""


def parse_size(text: str) -> int | None:
    """Returns a number of bytes from text such as 512, 64K or 100M; None if it is none, or over 10G."""
    digits, unit = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1)
    if not digits.isascii() or not digits.isdigit():
        return None
    size = int(digits) * unit
    return size if size <= MAX_BYTES else None


class Numbers(asyncio.Protocol):
    """One client of the numbered service."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix, self._part = prefix, b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            self._transport.write(self._prefix + line + b"\n")
        if len(self._part) > MAX_LINE_BYTES:
            self._transport.close()


async def serve_numbers(name: str, port: int) -> None:
    """Serves the numbered service for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Numbers(name.encode() + b" "), "", port, backlog=4096)
    await server.serve_forever()


def serve_datagrams(name: str, port: int) -> None:
    """Answers datagrams for ever, each from the address that it came to: there are several, VIPs among them."""
    prefix = name.encode() + b" "
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 too, as mapped addresses
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.bind(("::", port))
        while True:
            data, came_to, _, client = server.recvmsg(MAX_DATAGRAM_BYTES, ANCILLARY_BYTES)
            answer = (prefix + data)[:MAX_ANSWER_BYTES]
            sent_from = [(level, kind, to[:ADDRESS_BYTES] + bytes(4)) for level, kind, to in came_to]  # any interface
            with contextlib.suppress(OSError):  # a client that cannot be reached is no news
                server.sendmsg([answer], sent_from, 0, client)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until a signal ends it; `arguments` are those of the command line, unless others are given."""
    parser = argparse.ArgumentParser(description="the servers of a service endpoint")
    parser.add_argument("--name", required=True, help="how the endpoint calls itself")
    parser.add_argument("--http-port", type=int, default=HTTP_PORT, help="another, behind nginx (default: 80)")
    options = parser.parse_args(arguments)
    name = options.name
    allow_many_files()
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=Server(name, options.http_port, family).serve_forever, daemon=True).start()
    threading.Thread(target=serve_datagrams, args=(name, ECHO_PORT), daemon=True).start()
    asyncio.run(serve_numbers(name, ECHO_PORT))


if __name__ == "__main__":
    main()
