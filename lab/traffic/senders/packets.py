"""Puts IP packets on a client's wire as they are, malformed or not: at a steady rate, or at the times of a capture.

They come from a file, a packet a line: seconds after the first, and the bytes in hexadecimal. At a rate the packets of
the file take turns, or variants of the only one are sent. What the packets are is the lab's business
(`lab.traffic.crafted`); answers are counted by the client's kernel.
"""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ..variation import in_order, pieces, variants
from .obeying import main
from .pace import Pace

ETHERTYPES = {4: 0x0800, 6: 0x86DD}


class Packets:
    """Packets for one wire: `interface`, and the link address of who forwards them.

    Either `rate` and `seconds`, or `speed` of a replay (1 is as captured). With `vary` (a prefix of `sources` or "", a
    range of `ports`) the first packet's variants are sent; those over `piece_bytes` go in fragments, in an order.
    """

    def __init__(
        self,
        file: str,
        interface: str,
        link_address: str,
        seed: int = 0,
        rate: float = 0.0,
        seconds: float = 0.0,
        speed: float = 0.0,
        vary: Mapping[str, Any] | None = None,
        piece_bytes: int = 0,
        order: str = "forward",
    ) -> None:
        self._file, self._seed, self._vary = Path(file), seed, vary
        self._interface, self._link_address = interface, bytes.fromhex(link_address.replace(":", ""))
        self._rate, self._seconds, self._speed = rate, seconds, speed
        self._piece_bytes, self._order, self._dice = piece_bytes, order, random.Random(seed)
        self._identifications = itertools.count(self._dice.randrange(1 << 32))
        self._asked = self._sent = self._on_wire = self._bytes = self._refused = 0
        self._took_s = self._latest_s = 0.0

    def send(self, ended: threading.Event) -> None:
        """Sends until all is sent."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as self._wire:
            if self._speed:
                self._replay(ended)
            else:
                self._send_at_rate(ended)

    def _send_at_rate(self, ended: threading.Event) -> None:
        packets = self._packets()
        began = now = time.monotonic()
        pace = Pace(self._rate, self._seconds, now)
        while not ended.is_set() and not pace.over(now):
            for _ in range(pace.due(now)):
                self._put(next(packets))
            time.sleep(pace.rest_s(time.monotonic()))  # the pace itself
            now = time.monotonic()
            self._asked, self._took_s = pace.asked(now), now - began
        if not ended.is_set():
            self._asked, self._took_s = pace.total, self._seconds

    def _packets(self) -> Iterator[bytes]:
        stored = [packet for _, packet in self._stored()]
        if self._vary is None:
            return itertools.cycle(stored)
        sources = ip_network(self._vary["sources"]) if self._vary["sources"] else None
        return variants(stored[0], sources, range(*self._vary["ports"]), self._seed)

    def _stored(self) -> Iterator[tuple[float, bytes]]:
        with open(self._file) as lines:
            for line in lines:
                at_s, packet = line.split()
                yield float(at_s), bytes.fromhex(packet)

    def _replay(self, ended: threading.Event) -> None:
        """Sends every packet when it is due, or as soon as the machine gets to it."""
        began = time.monotonic()
        for at_s, packet in self._stored():
            due_at = began + at_s / self._speed
            if (early_s := due_at - time.monotonic()) > 0 and ended.wait(early_s):
                return
            now = time.monotonic()
            self._asked, self._took_s = self._asked + 1, now - began
            self._latest_s = max(self._latest_s, now - due_at)
            self._put(packet)

    def _put(self, packet: bytes) -> None:
        """Puts a packet on the wire, whole or in pieces."""
        parts = [packet]
        if self._piece_bytes:
            cut = pieces(packet, self._piece_bytes, next(self._identifications) % (1 << 32))
            parts = in_order(cut, self._order, self._dice)
        try:
            for part in parts:
                ethertype = ETHERTYPES.get(part[0] >> 4, ETHERTYPES[4])
                self._wire.sendto(part, (self._interface, ethertype, 0, 0, self._link_address))
                self._on_wire += 1
                self._bytes += len(part)
        except OSError:  # larger than the link takes, or no room in the queue
            self._refused += 1
        else:
            self._sent += 1

    def report(self) -> dict[str, Any]:
        """Returns the counts so far."""
        return {
            "asked": self._asked,
            "sent": self._sent,
            "on_wire": self._on_wire,
            "bytes": self._bytes,
            "refused": self._refused,
            "seconds": self._took_s,
            "latest_ms": round(self._latest_s * 1e3, 3),
        }


if __name__ == "__main__":
    main(Packets)
