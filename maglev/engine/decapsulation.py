"""How an endpoint takes clients' packets out of GRE, and answers as the VIP (direct server return, Maglev §2.1).

GRE comes over IPv4 or IPv6, and carries either. Where the kernel has `gre` and `ip6gre` devices they do the work: one
device for each address of a Maglev, so that it takes packets from there only. Elsewhere raw sockets receive GRE
(protocol 47), and what it carries goes into a TUN device. Either way the kernel then finds the VIP on its loopback
interface (`held_vips`), and answers the client as if it had sent there directly.
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
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from itertools import count
from typing import NamedTuple, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..direct_return import TUNNEL
from ..errors import Discard, PlatformError, Reason
from ..flow import GRE, V4_MAPPED, Address, pack_address, unpack_address
from ..gre import payload_of
from ..lingering import Network
from ..metrics import Delivered
from .machine import set_sysctl

DEVICE = TUNNEL
RECEIVE_BUFFER_BYTES = 32 << 20
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE_MTU_BYTES = 65535 - 24
LARGEST_PACKET_BYTES = 65535
AT_ONCE = 64  # packets of one family before the other has its turn
GRE_KINDS = {4: "gre", 6: "ip6gre"}  # IP version: kind of device (ip-link(8))
OUTER_TTL = 64


class Received(NamedTuple):
    """A GRE packet: who sent it (16 bytes), and all of it from the GRE header on."""

    source: bytes
    gre: bytes


class GreDevices:
    """The kernel's GRE devices, one for each address of a Maglev, until `undo`."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        self._undo_of: dict[Address, tuple[str, contextlib.ExitStack]] = {}  # Maglev: name of its device, how it goes
        undo.callback(self.follow, ())

    def follow(self, maglevs: Collection[Address]) -> bool:
        """Has a device for each of these and no others; False, and no change, if this kernel lacks a kind."""
        with contextlib.ExitStack() as made:
            fresh: dict[Address, tuple[str, contextlib.ExitStack]] = {}
            for maglev in maglevs:
                if maglev not in self._undo_of:
                    name = self._free_name(fresh)
                    undo = made.enter_context(contextlib.ExitStack())
                    if not _make_gre_device(name, maglev, undo):
                        return False
                    set_sysctl(name, "rp_filter", 0, undo)
                    fresh[maglev] = name, undo
            for maglev in self._undo_of.keys() - set(maglevs):
                self._undo_of.pop(maglev)[1].close()
            self._undo_of |= {maglev: (name, undo.pop_all()) for maglev, (name, undo) in fresh.items()}
        return True

    def _free_name(self, fresh: Mapping[Address, tuple[str, contextlib.ExitStack]]) -> str:
        taken = {name for name, _ in (*self._undo_of.values(), *fresh.values())}
        return next(name for number in count() if (name := f"{DEVICE}{number}") not in taken)

    def received(self) -> dict[Address, Delivered]:
        """Returns what has come out of the devices, by Maglev."""
        counts = counted_by_devices()
        return {maglev: Delivered(*counts.get(name, (0, 0))) for maglev, (name, _) in self._undo_of.copy().items()}


def make_gre_devices(maglevs: Collection[Address], undo: contextlib.ExitStack) -> GreDevices | None:
    """Makes a kernel GRE device for each address of a Maglev; None, and no device, if this kernel lacks a kind."""
    devices = GreDevices(undo)
    if not devices.follow(maglevs):
        return None
    set_sysctl("all", "rp_filter", 0, undo)
    return devices


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


def remove_what_was_left() -> None:
    """Removes the GRE devices of an endpoint that was killed: the kernel keeps them, and allows no others like them."""
    with IPRoute() as kernel:
        kinds = {link.get("ifname"): link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") for link in kernel.get_links()}
    for name, kind in kinds.items():
        if name.startswith(DEVICE) and kind in GRE_KINDS.values():
            _remove_device(name)


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


class _Admitted(NamedTuple):
    """Who may send, and for what; exchanged whole."""

    maglevs: frozenset[bytes]  # 16 bytes each
    addresses: frozenset[bytes]  # of VIPs, in 4 or 16 bytes
    prefixes: tuple[Network, ...]


class Gate:
    """Lets in what a configured Maglev sent for one of this endpoint's VIPs, and counts what it keeps out."""

    def __init__(self, maglevs: Collection[Address], vips: Collection[Network]) -> None:
        self.follow(maglevs, vips)
        self.reasons: Counter[Reason] = Counter()
        self._packets: Counter[bytes] = Counter()  # by Maglev, 16 bytes
        self._bytes: Counter[bytes] = Counter()

    def follow(self, maglevs: Collection[Address], vips: Collection[Network]) -> None:
        """Lets in what these Maglevs send for these VIPs from now on; any thread may ask for it."""
        self._admitted = _Admitted(
            frozenset(map(pack_address, maglevs)),
            frozenset(vip.network_address.packed for vip in vips if vip.num_addresses == 1),
            tuple(vip for vip in vips if vip.num_addresses > 1),
        )

    def received(self) -> dict[Address, Delivered]:
        """Returns what has been let in, by Maglev."""
        return {
            unpack_address(maglev): Delivered(self._packets[maglev], self._bytes[maglev])
            for maglev in sorted(self._admitted.maglevs)
        }

    def admit(self, received: Received) -> bytes:
        """Returns the packet that GRE carries; raises `Discard` with the reason if it may not come in."""
        inner = payload_of(received.gre)
        admitted = self._admitted
        if received.source not in admitted.maglevs:
            raise Discard(Reason.NOT_FROM_MAGLEV)
        if not _is_vip(admitted, inner[16:20] if inner[0] >> 4 == 4 else inner[24:40]):
            raise Discard(Reason.NOT_VIP)
        self._packets[received.source] += 1
        self._bytes[received.source] += len(inner)
        return inner


def _is_vip(admitted: _Admitted, destination: bytes) -> bool:
    """Says whether an address is a VIP; in 4 or 16 bytes, for an IPv4 VIP is none when mapped into IPv6."""
    if destination in admitted.addresses:
        return True
    return any(ip_address(destination) in prefix for prefix in admitted.prefixes)


class Source(Protocol):
    """Where packets come from; `Receiver` is one."""

    def fileno(self) -> int: ...
    def receive(self) -> Received: ...


def pump_once(receivers: Sequence[Source], device: int, gate: Gate) -> None:
    """Waits for packets, and carries them from the receivers into the TUN device."""
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
