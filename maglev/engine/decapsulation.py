"""How an endpoint takes clients' packets out of GRE, and answers as the VIP (direct server return, Maglev §2.1).

GRE comes over IPv4 or IPv6, and carries either. Where the kernel has `gre` and `ip6gre` devices they do the work: one
device for each address of a Maglev, so that it takes packets from there only. Elsewhere raw sockets receive GRE
(protocol 47), and what it carries goes into a TUN device. Either way the kernel then finds the VIP on its loopback
interface, and answers the client as if it had sent there directly.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..errors import Discard, PlatformError, Reason
from ..flow import GRE, V4_MAPPED, Address, pack_address, unpack_address
from ..gre import payload_of
from ..metrics import Delivered

DEVICE = "maglev"  # devices are called maglev0, maglev1, …
SYSCTL = Path("/proc/sys/net/ipv4/conf")
RECEIVE_BUFFER_BYTES = 32 << 20
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE_MTU_BYTES = 65535 - 24
LARGEST_PACKET_BYTES = 65535
AT_ONCE = 64  # packets of one family before the other has its turn
LOCAL_TABLE = 255  # RT_TABLE_LOCAL in linux/rtnetlink.h, as RT_SCOPE_HOST and RT_SCOPE_UNIVERSE
HOST_SCOPE = {4: 254, 6: 0}  # IP version: scope of routes to this machine
GRE_KINDS = {4: "gre", 6: "ip6gre"}  # IP version: kind of device (ip-link(8))
OUTER_TTL = 64


Network = IPv4Network | IPv6Network  # a VIP: one address, or a prefix


class Received(NamedTuple):
    """A GRE packet: who sent it (16 bytes), and all of it from the GRE header on."""

    source: bytes
    gre: bytes


def hold_vips(vips: Sequence[Network], undo: contextlib.ExitStack) -> None:
    """Makes the VIPs this machine's own: addresses on the loopback interface, prefixes as local routes; `undo` undoes.

    ARP is kept silent about them. In IPv6 the kernel speaks for no address that is on another interface.
    """
    set_sysctl("all", "arp_ignore", 1, undo)
    set_sysctl("all", "arp_announce", 2, undo)
    for vip in vips:
        with contextlib.suppress(NetlinkError):  # already there: left behind by an endpoint that was killed
            _hold("add", vip)
        undo.callback(_let_go, vip)


def _hold(verb: str, vip: Network) -> None:
    """Adds or deletes a VIP; NetlinkError if it is there already, or not."""
    with IPRoute() as kernel:
        loopback = kernel.link_lookup(ifname="lo")[0]
        if vip.prefixlen == vip.max_prefixlen:
            kernel.addr(verb, index=loopback, address=str(vip.network_address), prefixlen=vip.prefixlen)
        else:
            kernel.route(
                verb, dst=str(vip), oif=loopback, type="local", table=LOCAL_TABLE, scope=HOST_SCOPE[vip.version]
            )


def _let_go(vip: Network) -> None:
    with contextlib.suppress(NetlinkError):
        _hold("del", vip)


def set_sysctl(interface: str, name: str, value: int, undo: contextlib.ExitStack) -> None:
    """Sets net.ipv4.conf.INTERFACE.NAME; `undo` sets it back, if the interface is still there."""
    path = SYSCTL / interface / name
    before = path.read_text()
    try:
        path.write_text(str(value))
    except OSError as error:
        raise PlatformError(f"cannot set {path}: {error.strerror}; run the endpoint as root") from None
    undo.callback(_write_if_there, path, before)


def _write_if_there(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text)


def make_gre_devices(maglevs: Sequence[Address], undo: contextlib.ExitStack) -> bool:
    """Makes a kernel GRE device for each address of a Maglev; returns False, with none, if this kernel lacks a kind."""
    with contextlib.ExitStack() as made:
        for number, maglev in enumerate(maglevs):
            name = f"{DEVICE}{number}"
            if not _make_gre_device(name, maglev, made):
                return False
            set_sysctl(name, "rp_filter", 0, made)
        set_sysctl("all", "rp_filter", 0, made)
        undo.push(made.pop_all())
    return True


def _make_gre_device(name: str, maglev: Address, undo: contextlib.ExitStack) -> bool:
    """Makes a device that takes GRE from a Maglev, to whichever address of this machine; False if there is no kind."""
    kind = GRE_KINDS[maglev.version]
    with IPRoute() as kernel:
        try:
            kernel.link("add", ifname=name, kind=kind, **{f"{kind}_remote": str(maglev), f"{kind}_ttl": OUTER_TTL})
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                return False
            raise PlatformError(f"cannot make GRE device {name}: {error}") from None
        undo.callback(_remove_device, name)
        kernel.link("set", index=kernel.link_lookup(ifname=name)[0], state="up")
    return True


def _remove_device(name: str) -> None:
    with IPRoute() as kernel, contextlib.suppress(NetlinkError, IndexError):
        kernel.link("del", index=kernel.link_lookup(ifname=name)[0])


def delivered_by_devices() -> int:
    """Returns how many packets have come out of this module's devices."""
    return sum(packets for packets, _ in counted_by_devices().values())


def counted_by_devices() -> dict[str, tuple[int, int]]:
    """Returns packets and bytes that have come out of this module's devices, by the device's name."""
    with IPRoute() as kernel:
        counts = {link.get("ifname"): link.get("stats64") for link in kernel.get_links()}
    return {name: (count["rx_packets"], count["rx_bytes"]) for name, count in counts.items() if name.startswith(DEVICE)}


def received_by_devices(maglevs: Sequence[Address]) -> dict[Address, Delivered]:
    """Returns what has come out of the GRE devices of `make_gre_devices`, by Maglev."""
    counts = counted_by_devices()
    names = {maglev: f"{DEVICE}{number}" for number, maglev in enumerate(maglevs)}
    return {maglev: Delivered(*counts.get(name, (0, 0))) for maglev, name in names.items()}


def make_tun_device(undo: contextlib.ExitStack) -> int:
    """Makes a TUN device; returns the file descriptor that takes IP packets for it. It goes with the process."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as error:
        raise PlatformError(f"cannot open /dev/net/tun: {error.strerror}; this kernel needs TUN or GRE") from None
    undo.callback(os.close, device)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", f"{DEVICE}0".encode(), IFF_TUN | IFF_NO_PI))
    with IPRoute() as kernel:
        index = kernel.link_lookup(ifname=f"{DEVICE}0")[0]
        kernel.link("set", index=index, mtu=DEVICE_MTU_BYTES, state="up")
    set_sysctl(f"{DEVICE}0", "rp_filter", 0, undo)
    set_sysctl("all", "rp_filter", 0, undo)
    return device


class Receiver:
    """A raw socket that gets every GRE packet which reaches this machine over one family."""

    def __init__(self, version: int, undo: contextlib.ExitStack) -> None:
        """Opens the socket; PlatformError without the right, or without the family."""
        self._version = version
        self._family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            self._socket = undo.enter_context(socket.socket(self._family, socket.SOCK_RAW, GRE))
        except PermissionError:
            raise PlatformError("a raw socket needs CAP_NET_RAW: run the endpoint as root") from None
        except OSError as error:
            raise PlatformError(f"cannot receive GRE over IPv{version}: {error.strerror}") from None
        self._socket.setblocking(False)
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)

    def fileno(self) -> int:
        """Returns the descriptor, for `select`."""
        return self._socket.fileno()

    def receive(self) -> Received:
        """Returns the next packet, which the kernel has checked and reassembled; BlockingIOError if there is none.

        IPv4 comes with its header, IPv6 without (raw(7), RFC 3542 §3).
        """
        packet, (source, *_) = self._socket.recvfrom(LARGEST_PACKET_BYTES)
        if self._version == 4:
            return Received(V4_MAPPED + packet[12:16], packet[(packet[0] & 0x0F) * 4 :])
        return Received(socket.inet_pton(self._family, source.partition("%")[0]), packet)


def open_receivers(maglevs: Sequence[Address], undo: contextlib.ExitStack) -> list[Receiver]:
    """Opens a receiver for each family of which a Maglev has an address."""
    return [Receiver(version, undo) for version in sorted({maglev.version for maglev in maglevs})]


class Gate:
    """Lets in what a configured Maglev sent for one of this endpoint's VIPs, and counts what it keeps out."""

    def __init__(self, maglevs: Sequence[Address], vips: Sequence[Network]) -> None:
        self._maglevs = frozenset(map(pack_address, maglevs))
        self._addresses = frozenset(vip.network_address.packed for vip in vips if vip.num_addresses == 1)
        self._prefixes = tuple(vip for vip in vips if vip.num_addresses > 1)
        self.reasons: Counter[Reason] = Counter()
        self._packets: Counter[bytes] = Counter()  # by Maglev, 16 bytes
        self._bytes: Counter[bytes] = Counter()

    def received(self) -> dict[Address, Delivered]:
        """Returns what has been let in, by Maglev."""
        return {
            unpack_address(maglev): Delivered(self._packets[maglev], self._bytes[maglev])
            for maglev in sorted(self._maglevs)
        }

    def admit(self, received: Received) -> bytes:
        """Returns the packet that GRE carries; raises `Discard` with the reason if it may not come in."""
        inner = payload_of(received.gre)
        if received.source not in self._maglevs:
            raise Discard(Reason.NOT_FROM_MAGLEV)
        if not self._is_vip(inner[16:20] if inner[0] >> 4 == 4 else inner[24:40]):
            raise Discard(Reason.NOT_VIP)
        self._packets[received.source] += 1
        self._bytes[received.source] += len(inner)
        return inner

    def _is_vip(self, destination: bytes) -> bool:
        """Says whether an address is a VIP; in 4 or 16 bytes, for an IPv4 VIP is none when mapped into IPv6."""
        if destination in self._addresses:
            return True
        return any(ip_address(destination) in prefix for prefix in self._prefixes)


def pump(receivers: Sequence[Receiver], device: int, gate: Gate) -> None:
    """Carries packets from the receivers into the TUN device, until a signal handler raises."""
    while True:
        for receiver in select.select(receivers, [], [])[0]:
            with contextlib.suppress(BlockingIOError):
                for _ in range(AT_ONCE):
                    _carry(receiver.receive(), device, gate)


def _carry(received: Received, device: int, gate: Gate) -> None:
    try:
        os.write(device, gate.admit(received))
    except Discard as discard:
        gate.reasons[discard.reason] += 1
    except OSError:  # the device takes nothing that is not an IP packet
        gate.reasons[Reason.SEND_FAILED] += 1
