"""The probes themselves: ping, TCP, HTTP, UDP, DNS and script, each to an endpoint's address or through the data path.

A probe passes by returning and fails by raising; the caller sets the timeout. What counts as a good answer is
`maglev.answers`' business, what a result means `maglev.health`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

from .. import answers
from ..answers import LARGEST_ANSWER_BYTES
from ..errors import PlatformError
from ..flow import TCP, UDP
from ..health import Check
from . import scripts
from .pinger import Pinger
from .vip_path import VipPath

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
LARGEST_DATAGRAM_BYTES = 65535
NO_LINGER = struct.pack("ii", 1, 0)  # closing resets the connection


class Probes:
    """Sends probes from one event loop; without a `path` it has no way to VIPs."""

    def __init__(self, path: VipPath | None = None) -> None:
        self._path = path
        self._pinger = Pinger(path)
        self._attached = False
        self._kinds: dict[str, Callable[[Check], Awaitable[None]]] = {
            "ping": self._ping,
            "tcp": self._tcp,
            "http": self._http,
            "udp": self._udp,
            "dns": self._dns,
            "script": self._script,
        }

    async def probe(self, check: Check) -> None:
        """Returns when a probe has passed; raises when it has failed."""
        if check.vip is not None and not self._attached:
            self._attach()
        await self._kinds[check.method.type](check)

    def close(self) -> None:
        """Ends what waits for answers to pings."""
        self._pinger.close()

    def _attach(self) -> None:
        if self._path is None or not self._path.is_open:
            raise PlatformError("this process has no way through the data path")
        self._path.attach(asyncio.get_running_loop())
        self._attached = True

    async def _ping(self, check: Check) -> None:
        await self._pinger.ping(check.address, check.vip)

    async def _tcp(self, check: Check) -> None:
        with self._socket(check, socket.SOCK_STREAM) as connection:
            await _connect(connection, check)

    async def _http(self, check: Check) -> None:
        """Reads until the answer has ended by its own account or the connection has; a long one need not be whole."""
        loop = asyncio.get_running_loop()
        answer = b""
        with self._socket(check, socket.SOCK_STREAM) as connection:
            await _connect(connection, check)
            await loop.sock_sendall(connection, answers.http_request(check.method, check.vip or check.address))
            while len(answer) < LARGEST_ANSWER_BYTES and (chunk := await loop.sock_recv(connection, 16384)):
                answer += chunk
                if answers.http_is_whole(answer):
                    break
        answers.judge_http(check.method, answer)

    async def _udp(self, check: Check) -> None:
        loop = asyncio.get_running_loop()
        with self._socket(check, socket.SOCK_DGRAM) as connection:
            await _connect(connection, check)
            await loop.sock_sendall(connection, answers.bytes_of(check.method.send or ""))
            answers.judge_udp(check.method, await loop.sock_recv(connection, LARGEST_DATAGRAM_BYTES))

    async def _dns(self, check: Check) -> None:
        """Asks by UDP; answers to other questions are passed over (RFC 5452 §9.1)."""
        loop = asyncio.get_running_loop()
        number = secrets.randbits(16)  # hard to guess, so that nobody else can answer
        with self._socket(check, socket.SOCK_DGRAM) as connection:
            await _connect(connection, check)
            await loop.sock_sendall(connection, answers.dns_question(check.method, number))
            while not answers.judge_dns(check.method, number, await loop.sock_recv(connection, LARGEST_DATAGRAM_BYTES)):
                pass

    async def _script(self, check: Check) -> None:
        await scripts.run(check.method.command or (), check.address)

    @contextlib.contextmanager
    def _socket(self, check: Check, kind: socket.SocketKind) -> Iterator[socket.socket]:
        """Opens a socket, which goes at the end.

        Connections through the data path all lead to the same VIPs, and would run out of ports if each lingered for
        a minute (TIME-WAIT): they end by a reset.
        """
        with socket.socket(FAMILIES[(check.vip or check.address).version], kind) as probe:
            probe.setblocking(False)
            if check.vip is not None and self._path is not None:
                self._path.enlist(probe, TCP if kind == socket.SOCK_STREAM else UDP, check.address)
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            yield probe


async def _connect(probe: socket.socket, check: Check) -> None:
    """Connects; asyncio's own `sock_connect` would look every address up.

    An endpoint nearby has answered before the first call returns, and the second says so: no need to wait for an event.
    """
    place = (str(check.vip or check.address), check.method.port)
    error = probe.connect_ex(place)
    if error == errno.EINPROGRESS:
        error = probe.connect_ex(place)
    if error == errno.EALREADY:
        await _writable(probe)
        error = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


async def _writable(probe: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    number = probe.fileno()  # asyncio would write out a socket for the text of an error that it does not raise
    loop.add_writer(number, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_writer(number)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
