"""How an endpoint takes clients' packets out of GRE, and answers as the VIP (direct server return, Maglev §2.1).

Where the kernel has a `gre` device it does the work: one device a Maglev, so that each takes packets from that
Maglev only. Elsewhere a raw socket receives GRE (protocol 47), and what it carries goes into a TUN device. Either
way the kernel then finds the VIP on its loopback interface, and answers the client as if it had sent there directly.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..errors import Discard, PlatformError, Reason
from ..flow import GRE, V4_MAPPED, Address, pack_address
from ..gre import decapsulate

DEVICE = "maglev"  # devices are called maglev0, maglev1, …
SYSCTL = Path("/proc/sys/net/ipv4/conf")
RECEIVE_BUFFER_BYTES = 32 << 20
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE_MTU_BYTES = 65535 - 24


def hold_vips(vips: Sequence[Address], undo: contextlib.ExitStack) -> None:
    """Puts the VIPs on the loopback interface, and keeps ARP silent about them; `undo` takes them away again."""
    set_sysctl("all", "arp_ignore", 1, undo)
    set_sysctl("all", "arp_announce", 2, undo)
    with IPRoute() as kernel:
        loopback = kernel.link_lookup(ifname="lo")[0]
        for vip in vips:
            with contextlib.suppress(NetlinkError):  # already there: left behind by an endpoint that was killed
                kernel.addr("add", index=loopback, address=str(vip), prefixlen=vip.max_prefixlen)
            undo.callback(_remove_address, loopback, vip)


def _remove_address(interface: int, address: Address) -> None:
    with IPRoute() as kernel, contextlib.suppress(NetlinkError):
        kernel.addr("del", index=interface, address=str(address), prefixlen=address.max_prefixlen)


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


def make_gre_devices(own: Address, maglevs: Sequence[Address], undo: contextlib.ExitStack) -> bool:
    """Makes a kernel GRE device for each Maglev; returns False if this kernel has none."""
    for number, maglev in enumerate(maglevs):
        name = f"{DEVICE}{number}"
        with IPRoute() as kernel:
            try:
                kernel.link("add", ifname=name, kind="gre", gre_local=str(own), gre_remote=str(maglev), gre_ttl=64)
            except NetlinkError as error:
                if error.code == errno.EOPNOTSUPP:
                    return False
                raise PlatformError(f"cannot make GRE device {name}: {error}") from None
            undo.callback(_remove_device, name)
            kernel.link("set", index=kernel.link_lookup(ifname=name)[0], state="up")
        set_sysctl(name, "rp_filter", 0, undo)
    set_sysctl("all", "rp_filter", 0, undo)
    return True


def _remove_device(name: str) -> None:
    with IPRoute() as kernel, contextlib.suppress(NetlinkError, IndexError):
        kernel.link("del", index=kernel.link_lookup(ifname=name)[0])


def delivered_by_devices() -> int:
    """Returns how many packets have come out of this module's devices."""
    with IPRoute() as kernel:
        own = [link for link in kernel.get_links() if link.get("ifname").startswith(DEVICE)]
        return sum(link.get("stats64")["rx_packets"] for link in own)


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


def open_gre_socket(undo: contextlib.ExitStack) -> socket.socket:
    """Opens the raw socket that receives every GRE packet for this machine; PlatformError without the right."""
    try:
        receiver = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, GRE))
    except PermissionError:
        raise PlatformError("a raw socket needs CAP_NET_RAW: run the endpoint as root") from None
    with contextlib.suppress(PermissionError):
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    return receiver


class Gate:
    """Lets in what a configured Maglev sent for one of this endpoint's VIPs, and counts what it keeps out."""

    def __init__(self, maglevs: Sequence[Address], vips: Sequence[Address]) -> None:
        self._maglevs = frozenset(map(pack_address, maglevs))
        self._vips = frozenset(map(pack_address, vips))
        self.reasons: Counter[Reason] = Counter()

    def admit(self, outer: bytes) -> bytes:
        """Returns the inner packet of a GRE packet; raises `Discard` with the reason if it may not come in."""
        source, inner = decapsulate(outer)
        if source not in self._maglevs:
            raise Discard(Reason.NOT_FROM_MAGLEV)
        if V4_MAPPED + inner[16:20] not in self._vips:
            raise Discard(Reason.NOT_VIP)
        return inner


def pump(receive: Callable[[int], bytes], device: int, gate: Gate) -> None:
    """Carries packets from the GRE socket into the TUN device, until a signal handler raises."""
    while True:
        try:
            os.write(device, gate.admit(receive(65535)))
        except Discard as discard:
            gate.reasons[discard.reason] += 1
        except OSError:  # the device takes nothing that is not an IP packet
            gate.reasons[Reason.SEND_FAILED] += 1
