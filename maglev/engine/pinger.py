"""Ping for many addresses at a time over one raw socket (RFC 792), with icmplib's packets.

A raw ICMP socket gets a copy of every ICMP packet that reaches the machine. With a socket for each ping, n pings would
therefore read n answers each; here one reader hands each answer to the ping that waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from maglev.engine.vip_path import ICMPV6, MARK, VipPath
from maglev.flow import ICMP, Address

SEQUENCE_NUMBERS = 1 << 16
FOREVER_S = 1e6
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>; Python has no name for it
RECEIVE_BUFFER = 1 << 20  # bytes: 256 answers that come at once take 200 kB of the kernel's, each with its headers


class Pinger:
    """Sends echo requests from one event loop. From the first ping on it needs the right to open raw sockets."""

    def __init__(self, path: VipPath | None = None) -> None:
        """Takes the way through the data path, which pings to VIPs need."""
        self._path = path
        self._sockets: dict[tuple[int, bool], Any] = {}  # IP version, whether marked: icmplib's asynchronous socket
        self._readers: set[asyncio.Task[None]] = set()
        self._waiting: dict[int, asyncio.Future[Any]] = {}  # by sequence number
        self._sequence = 0
        self._identifier = 0
        self._closed = False

    async def ping(self, address: Address, vip: Address | None = None) -> None:
        """Returns when the address has answered, at a VIP through the data path if one is given.

        Waits for ever if there is no answer, so the caller sets a timeout. Raises icmplib's ICMPLibError when an ICMP
        error comes back, or when nothing can be sent.
        """
        from icmplib import ICMPRequest  # late: whoever never pings saves 30 ms

        asked = vip or address
        kind = asked.version, vip is not None
        connection = self._sockets.get(kind) or self._open(*kind)
        self._sequence = sequence = (self._sequence + 1) % SEQUENCE_NUMBERS
        if vip and self._path:
            self._path.enlist_ping(ICMP if vip.version == 4 else ICMPV6, sequence, address)
        answer = self._waiting[sequence] = asyncio.get_running_loop().create_future()
        try:
            connection.send(ICMPRequest(str(asked), self._identifier, sequence))
            (await answer).raise_for_status()
        finally:
            del self._waiting[sequence]

    def close(self) -> None:
        """Ends the readers, and with them their sockets."""
        self._closed = True
        for reader in self._readers:
            reader.cancel()

    def _open(self, version: int, marked: bool) -> Any:
        from icmplib import AsyncSocket, ICMPv4Socket, ICMPv6Socket
        from icmplib.utils import unique_identifier

        self._identifier = self._identifier or unique_identifier()
        connection = AsyncSocket(ICMPv4Socket() if version == 4 else ICMPv6Socket())
        with contextlib.suppress(PermissionError):  # without the right to, the machine's own limit has to do
            connection.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        if marked:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        self._sockets[version, marked] = connection
        reader = asyncio.create_task(self._read((version, marked), connection))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return connection

    async def _read(self, kind: tuple[int, bool], connection: Any) -> None:
        """Hands out answers until the socket fails; the next ping then opens another."""
        try:
            while not self._closed:  # asyncio.wait_for, in icmplib, forgets a cancellation that comes with an answer
                reply = await connection.receive(timeout=FOREVER_S)
                answer = self._waiting.get(reply.sequence)
                if reply.id == self._identifier and answer and not answer.done():
                    answer.set_result(reply)
        finally:
            del self._sockets[kind]
            connection.close()
