"""Next hops from the kernel's own tables: route, neighbour (ARP, NDP), link address, by netlink (rtnetlink(7)).

The kernel resolves addresses and ages them; we ask it to, and follow what it says. Packets that a packet socket
sends do not tell the kernel that a neighbour is in use, so every next hop is called to its mind now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV4_RULE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_IPV6_RULE,
    RTMGRP_LINK,
    RTMGRP_NEIGH,
)

from ..flow import V4_MAPPED
from .routes import Hop, next_hops

REFRESH_S = 2.0  # how often each next hop without a usable address is called to the kernel's mind
ROUNDS = 5  # of these, one is for all: it costs more than anything else here while nothing happens
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = b"\x08\x00", b"\x86\xdd"
NTF_USE = 0x01  # linux/neighbour.h: treat this entry as used, so resolve or confirm it
NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # reachable, stale, delay, probe, noarp, permanent
IPV4_EVENTS = RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE
IPV6_EVENTS = RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE | RTMGRP_IPV6_RULE
EVENTS = RTMGRP_NEIGH | RTMGRP_LINK | IPV4_EVENTS | IPV6_EVENTS


class Overrun(Exception):
    """More netlink messages than the socket's buffer holds: some are lost (netlink(7))."""


class Neighbours:
    """Keeps the Ethernet header that leads to each endpoint, in a thread of its own.

    `on_change` gets all headers (14 bytes) by endpoint (16 bytes) whenever one has changed, or a link has.
    """

    def __init__(self, on_change: Callable[[Mapping[bytes, bytes]], None] = lambda headers: None) -> None:
        self._on_change = on_change
        self._headers: dict[bytes, bytes] = {}  # endpoint (16 bytes): header; exchanged whole
        self._targets: frozenset[bytes] = frozenset()
        self._hops: dict[bytes, Hop] = {}
        self._own: dict[int, bytes] = {}  # interface index: its own link address
        self._theirs: dict[Hop, bytes] = {}
        self._routes_changed: asyncio.Event | None = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="neighbours", daemon=True)

    def start(self) -> None:
        """Starts following the kernel's tables; returns when it does."""
        self._thread.start()
        self._ready.wait()

    def next_hop(self, endpoint: bytes) -> bytes | None:
        """Returns the Ethernet header (14 bytes) that leads to an endpoint (16 bytes), None while it is unknown."""
        return self._headers.get(endpoint)

    def set_targets(self, endpoints: Iterable[bytes]) -> None:
        """Says which endpoints (16 bytes each) next hops are wanted for; another thread may call it."""
        self._targets = frozenset(endpoints)
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._routes_changed is not None:
            self._routes_changed.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._follow())

    async def _follow(self) -> None:
        self._routes_changed = asyncio.Event()
        async with AsyncIPRoute() as queries:
            await asyncio.gather(self._listen(), self._keep_current(queries))

    async def _listen(self) -> None:
        """Follows events; when there were more than we could take, begins anew, for the kernel threw some away."""
        while True:
            async with AsyncIPRoute() as events, AsyncIPRoute() as queries:
                await events.bind(groups=EVENTS)
                await self._read_all(queries)
                self._wake()
                self._ready.set()
                with contextlib.suppress(Overrun):
                    await self._read_events(events)

    async def _read_all(self, queries: AsyncIPRoute) -> None:
        """Takes all links' and neighbours' addresses anew, in the place of what was known."""
        own: dict[int, bytes] = {}
        theirs: dict[Hop, bytes] = {}
        async for link in await queries.get_links():
            if link.get("address"):
                own[link["index"]] = _packed(link.get("address"))
        async for neighbour in await queries.get_neighbours():
            if (address := _usable_address(neighbour)) is not None:
                theirs[_hop(neighbour)] = address
        self._own, self._theirs = own, theirs
        self._publish()

    async def _read_events(self, events: AsyncIPRoute) -> None:
        while True:
            try:
                async for message in events.get():
                    self._learn(message)
            except OSError as error:
                raise Overrun if error.errno == errno.ENOBUFS else error from None

    def _learn(self, message: Any) -> None:
        """Takes a neighbour's or a link's address from an event; has routes asked for again where they may change."""
        if message["event"].endswith("NEIGH"):
            address = _usable_address(message) if message["event"] == "RTM_NEWNEIGH" else None
            if address is None:
                self._theirs.pop(_hop(message), None)
            else:
                self._theirs[_hop(message)] = address
            self._publish()
            return
        if message["event"] == "RTM_NEWLINK":
            if message.get("address"):
                self._own[message["index"]] = _packed(message.get("address"))
            self._publish(anyway=True)  # it may be that the link carries more than before, or less
        self._wake()

    async def _keep_current(self, queries: AsyncIPRoute) -> None:
        """Asks for routes when they may have changed, and calls next hops to mind then and in regular intervals.

        Routes are one for each endpoint, next hops few: to ask for all routes again and again would hold up packets.
        """
        assert self._routes_changed is not None
        for turn in itertools.count():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._routes_changed.wait(), REFRESH_S)
            if self._routes_changed.is_set():
                self._routes_changed.clear()
                targets = self._targets
                self._hops = next_hops(targets)
                self._publish()
            for hop in set(self._hops.values()):
                if turn % ROUNDS == 0 or hop not in self._theirs:
                    await _use(queries, hop)

    def _publish(self, anyway: bool = False) -> None:
        headers = {
            target: self._theirs[hop] + self._own[hop[0]] + _ethertype(target)
            for target, hop in self._hops.items()
            if hop in self._theirs and hop[0] in self._own
        }
        if headers != self._headers or anyway:
            self._headers = headers
            self._on_change(headers)


def _ethertype(endpoint: bytes) -> bytes:
    """Returns which protocol follows on the way to an endpoint: its own, also where the next hop is of the other."""
    return ETHERTYPE_IPV4 if endpoint.startswith(V4_MAPPED) else ETHERTYPE_IPV6


def _hop(neighbour: Any) -> Hop:
    return neighbour["ifindex"], str(neighbour.get("dst"))


def _usable_address(neighbour: Any) -> bytes | None:
    """Returns a neighbour's link address, None while the kernel knows none that may be used."""
    link_address = neighbour.get("lladdr")
    return _packed(link_address) if neighbour["state"] & NUD_USABLE and link_address else None


async def _use(queries: AsyncIPRoute, hop: Hop) -> None:
    with contextlib.suppress(NetlinkError):  # the interface may just have gone
        await queries.neigh("add", ifindex=hop[0], dst=hop[1], state=0, flags=NTF_USE)


def _packed(link_address: str) -> bytes:
    return bytes.fromhex(link_address.replace(":", ""))
