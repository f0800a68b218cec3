"""Carries DNS messages: a thread a query over UDP, a thread a connection over TCP (RFC 1035 §4.2, RFC 7766)."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from ipaddress import ip_address

from ..errors import PlatformError
from ..flow import Address

Answer = Callable[[bytes, Address, bool], bytes | None]  # message, whose, over TCP -> message; None: silence
CLIENT_SILENCE_S = 5.0
MOST_CONNECTIONS = 64  # of TCP, at a time


class _Udp(socketserver.ThreadingUDPServer):
    allow_reuse_address = True
    daemon_threads = True
    max_packet_size = 65535

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        self.address_family = _family(address[0])
        self.answer = answer
        super().__init__(address, _Datagram)


class _Datagram(socketserver.BaseRequestHandler):
    server: _Udp

    def handle(self) -> None:
        message, ours = self.request
        reply = self.server.answer(message, _client(self.client_address), False)
        if reply is not None:
            with contextlib.suppress(OSError):  # the client's network has gone
                ours.sendto(reply, self.client_address)


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        self.address_family = _family(address[0])
        self.answer = answer
        self.room = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, _Stream)


class _Stream(socketserver.StreamRequestHandler):
    server: _Tcp
    timeout = CLIENT_SILENCE_S

    def handle(self) -> None:
        if not self.server.room.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(OSError):  # it is silent, or has gone
                self._converse()
        finally:
            self.server.room.release()

    def _converse(self) -> None:
        while len(head := self.rfile.read(2)) == 2:
            (length,) = struct.unpack("!H", head)
            message = self.rfile.read(length)
            reply = self.server.answer(message, _client(self.client_address), True)
            if len(message) < length or reply is None:
                return
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _client(address: tuple[str, int]) -> Address:
    return ip_address(address[0].partition("%")[0])


class DnsServer:
    """Answers on every address given, over UDP and TCP, in threads of its own."""

    def __init__(self, addresses: list[Address], port: int, answer: Answer) -> None:
        """Opens all sockets; PlatformError if one cannot be had."""
        self._servers: list[socketserver.BaseServer] = []
        for address in addresses:
            for kind in (_Udp, _Tcp):
                try:
                    self._servers.append(kind((str(address), port), answer))
                except OSError as error:
                    self.close()
                    raise PlatformError(f"cannot serve DNS on {address} port {port}: {error.strerror}") from None

    def start(self) -> None:
        """Begins to answer."""
        for server in self._servers:
            threading.Thread(target=server.serve_forever, name="dns", daemon=True).start()

    def close(self) -> None:
        """Closes all sockets."""
        for server in self._servers:
            server.server_close()
