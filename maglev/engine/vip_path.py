"""Probes through the data path: to the VIP, in GRE to the one endpoint that is to be checked (Maglev §2.2).

A plain check asks an endpoint at its own address, and passes one that has lost its VIP or takes nothing out of GRE any
more: that one goes on getting its share of the connections, and answers none. Here a probe goes the way that clients'
packets go:

    socket, to the VIP  ->  TUN device  ->  GRE, by a raw socket  ->  endpoint
    socket              <-  from the VIP to the Maglev's own address, by the kernel's usual way (direct server return)

The connection is the kernel's own. So every type of probe works as it does to a plain address, retransmission and all,
and the kernel knows the connection: it sends no reset, which it would to the answers of a TCP written here. Only
sockets with `MARK` are routed into the device, by a rule and a table of their own, whose second route refuses what
the device cannot take: whatever else this machine sends to a VIP goes where it always went. Which endpoint a packet is
for is told by its source port, since no two sockets of a kind have the same, or by its sequence number, if it is an
echo request. A port's entry stays until the port's next turn, for the last words of a connection.

What a server says when its probe is over already, the kernel resets, and that reset is no socket's and has no mark. A
second rule takes it into the device too: it holds for TCP from probes' ports, which are beyond those that the kernel
gives to others, and its table has routes to VIPs alone.

Forwarders see the answers too, but these are addressed to the Maglev, not to a VIP: they are other people's traffic.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import itertools
import os
import socket
import struct
from collections.abc import Iterable

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..errors import Discard, PlatformError
from ..flow import ICMP, TCP, UDP, Address, pack_address
from ..gre import Tunnel

DEVICE = "vip-probes"
MARK = TABLE = 0x6D67  # of our own: "mg"
RESETS_TABLE = TABLE + 1
PRIORITY = 20516  # of the rules: before the main table
PORTS = range(61000, 65535)  # beyond net.ipv4.ip_local_port_range as it is by default; no rule may name the last port
LAST_METRIC = 4096  # of the route that refuses
MTU_BYTES = 1280  # the least that IPv6 allows: probes are short, and with GRE around them fit every link
QUEUE_PACKETS = 4096  # what a first round of a thousand probes leaves there before any is carried on
PACKETS_AT_ONCE = 64  # before other probes have their turn
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ICMPV6 = 58  # IANA protocol number
ECHO_REQUESTS = {ICMP: 8, ICMPV6: 128}  # RFC 792, RFC 4443

Key = tuple[int, int]  # protocol, source port or sequence number
Way = tuple[Tunnel, socket.socket, str]  # to an endpoint: tunnel, who sends, the endpoint's address


class VipPath:
    """The way of probes through the data path of the Maglev whose own addresses are given, one of an IP version."""

    def __init__(self, own: Iterable[Address]) -> None:
        self._own = {address.version: address for address in own}
        self._gre: dict[int, socket.socket] = {}  # IP version: a raw socket that takes packets with their outer header
        self._ways: dict[Key, Way] = {}
        self._ways_to: dict[Address, Way] = {}
        self._ports = itertools.cycle(PORTS)
        self._vips: set[Address] = set()
        self._device = -1
        self._undo = contextlib.ExitStack()

    @property
    def is_open(self) -> bool:
        return self._device >= 0

    def open(self, vips: Iterable[Address]) -> None:
        """Makes the device and the routes to it, as far as they are not there; PlatformError if this machine cannot."""
        if not self.is_open:
            self._make()
        with IPRoute() as kernel:
            index = kernel.link_lookup(ifname=DEVICE)[0]
            for vip in set(vips) - self._vips:
                if vip.version not in {other.version for other in self._vips}:
                    self._route(kernel, vip.version, index)
                _add(kernel.route, **_to(vip.version, str(vip), RESETS_TABLE), oif=index)  # goes with the device
                self._vips.add(vip)

    def _make(self) -> None:
        with contextlib.ExitStack() as undo:
            device = _make_device(undo)
            with IPRoute() as kernel:
                index = kernel.link_lookup(ifname=DEVICE)[0]
                kernel.link("set", index=index, mtu=MTU_BYTES, txqlen=QUEUE_PACKETS, state="up")
            self._gre = {version: undo.enter_context(_open_gre_socket(version)) for version in self._own}
            self._undo = undo.pop_all()
        self._device = device

    def close(self) -> None:
        """Takes everything away again."""
        self._device = -1
        self._vips.clear()
        self._undo.close()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has a loop carry packets from the device into GRE."""
        loop.add_reader(self._device, self._carry, loop)

    def enlist(self, probe: socket.socket, protocol: int, endpoint: Address) -> None:
        """Has all that a socket will send to VIPs go to one endpoint; `protocol` is TCP or UDP."""
        way = self._way_to(endpoint)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        self._ways[protocol, self._bind(probe)] = way

    def _bind(self, probe: socket.socket) -> int:
        """Gives a socket the next free one of the probes' ports, and returns it; OSError if there is none."""
        for port in itertools.islice(self._ports, len(PORTS)):
            with contextlib.suppress(OSError):  # taken
                probe.bind(("", port))
                return port
        raise OSError(errno.EADDRINUSE, "all ports of probes are taken")

    def enlist_ping(self, protocol: int, sequence: int, endpoint: Address) -> None:
        """Has the echo request with a sequence number, from a socket with `MARK`, go to one endpoint."""
        self._ways[protocol, sequence] = self._way_to(endpoint)

    def _route(self, kernel: IPRoute, version: int, index: int) -> None:
        """Routes marked packets of one IP version into the device; what a killed forwarder left behind may be there."""
        own = {"prefsrc": str(self._own[version])} if version in self._own else {}
        everywhere = _to(version, EVERYWHERE[version], TABLE)
        refuse = {**everywhere, "type": "unreachable", "priority": LAST_METRIC}
        _add(kernel.route, **refuse)
        self._undo.callback(_delete, "route", refuse)
        _add(kernel.route, **everywhere, oif=index, **own)
        resets = {"ip_proto": TCP, "sport_range": f"{PORTS[0]}:{PORTS[-1]}", "table": RESETS_TABLE}
        for what in ({"fwmark": MARK, "table": TABLE}, resets):
            rule = {"priority": PRIORITY, "family": FAMILIES[version], **what}
            _add(kernel.rule, **rule)
            self._undo.callback(_delete, "rule", rule)

    def _carry(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sends what has come out of the device, each packet to its endpoint."""
        try:
            for _ in range(PACKETS_AT_ONCE):
                packet = os.read(self._device, MTU_BYTES)
                way = self._ways.get(_key(packet))
                if way is not None:
                    _send(packet, *way)
        except BlockingIOError:
            return
        except OSError:  # somebody has removed the device: what should have gone there is refused from now on
            loop.remove_reader(self._device)

    def _way_to(self, endpoint: Address) -> Way:
        """Returns the way to an endpoint; PlatformError if this Maglev has no address of its IP version."""
        if endpoint not in self._ways_to:
            own = self._own.get(endpoint.version)
            if own is None:
                raise PlatformError(f"this Maglev has no IPv{endpoint.version} address to send GRE to {endpoint} from")
            tunnel = Tunnel(pack_address(own), pack_address(endpoint))
            self._ways_to[endpoint] = tunnel, self._gre[endpoint.version], str(endpoint)
        return self._ways_to[endpoint]


def _send(packet: bytes, tunnel: Tunnel, gre: socket.socket, endpoint: str) -> None:
    """Sends a packet in GRE; one that cannot be sent is lost, as on any way, and the probe will find out."""
    with contextlib.suppress(OSError, Discard):
        gre.sendto(tunnel.encapsulate(packet), (endpoint, 0))


def _key(packet: bytes) -> Key:
    """Returns by what a packet of the kernel's own making is told; the device also takes IPv6's own chatter."""
    if packet[0] >> 4 == 4:
        protocol, start = packet[9], (packet[0] & 0x0F) * 4
    else:
        protocol, start = packet[6], 40
    if protocol in (TCP, UDP):
        return protocol, int.from_bytes(packet[start : start + 2], "big")
    if packet[start] != ECHO_REQUESTS.get(protocol):
        return -1, -1
    return protocol, int.from_bytes(packet[start + 6 : start + 8], "big")


def _make_device(undo: contextlib.ExitStack) -> int:
    """Returns the file descriptor of a new TUN device, which goes with it."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        undo.callback(os.close, device)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    except OSError as error:
        raise PlatformError(
            f"health checks through the VIP need a TUN device, and /dev/net/tun makes none: {error.strerror}"
        ) from None
    return device


def _open_gre_socket(version: int) -> socket.socket:
    try:
        return socket.socket(FAMILIES[version], socket.SOCK_RAW, socket.IPPROTO_RAW)
    except PermissionError:
        raise PlatformError("health checks through the VIP need CAP_NET_RAW: run the forwarder as root") from None


def _to(version: int, destination: str, table: int) -> dict[str, object]:
    return {"dst": destination, "family": FAMILIES[version], "table": table}


def _add(change: object, **what: object) -> None:
    try:
        change("add", **what)  # type: ignore[operator]
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise PlatformError(f"health checks through the VIP cannot set up routes of their own: {error}") from None


def _delete(kind: str, what: dict[str, object]) -> None:
    with IPRoute() as kernel, contextlib.suppress(NetlinkError):
        getattr(kernel, kind)("del", **what)
