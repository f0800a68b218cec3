"""Exercise 5: an endpoint, which answers clients itself. Your code; `maglab check 5` judges it.

The names are those of `maglev.gre`, `maglev.engine.decapsulation`, `maglev.engine.held_vips` and
`maglev.direct_return`, with the same arguments, so that a lab's endpoints can run with yours in their place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import subprocess
from collections.abc import Collection, Sequence

from maglev.direct_return import CLIENT_MTU_BYTES, Machine, Trouble
from maglev.engine.decapsulation import AT_ONCE, DEVICE, IFF_NO_PI, IFF_TUN, TUNSETIFF, Received, Source
from maglev.engine.decapsulation import Gate as GivenGate
from maglev.engine.machine import set_sysctl  # set_sysctl("all", "arp_ignore", 1, undo): net.ipv4.conf.all.arp_ignore
from maglev.errors import Discard, Reason  # raise Discard(Reason.BAD_GRE_HEADER), for example
from maglev.flow import Address
from maglev.lingering import Network


def payload_of(gre: bytes) -> bytes:
    """Returns the IPv4 or IPv6 packet that GRE carries; `gre` begins with the GRE header, of 4 bytes.

    Raises `Discard(Reason.BAD_GRE_HEADER)` for a header with any bit set in its first 16, for a protocol type that is
    neither 0x0800 (IPv4) nor 0x86DD (IPv6), for less inside than a whole header of that version (20 or 40 bytes), and
    for an inner packet of the other version.
    """
    raise NotImplementedError("step 1: take the client's packet out of GRE")


class Gate(GivenGate):
    """Lets in what a configured Maglev has sent for one of this endpoint's VIPs."""

    def is_maglev(self, source: bytes) -> bool:
        """Says whether an address (16 bytes) is a Maglev's; given."""
        return source in self._admitted.maglevs

    def is_vip(self, destination: bytes) -> bool:
        """Says whether an address (4 or 16 bytes, as it stands in a header) is a VIP of this endpoint; given."""
        return destination in self._admitted.addresses

    def count(self, source: bytes, inner: bytes) -> None:
        """Counts a packet that was let in; given."""
        self._packets[source] += 1
        self._bytes[source] += len(inner)

    def admit(self, received: Received) -> bytes:
        """Returns the packet that `received.gre` carries, and counts it; `Discard` if it may not come in.

        The reason is that of `payload_of`; or NOT_FROM_MAGLEV, if `received.source` (16 bytes) is nobody whom this
        endpoint trusts; or NOT_VIP, if what is inside is for another address.
        """
        raise NotImplementedError("step 2: let in what Maglevs send for VIPs, and nothing else")


def pump_once(receivers: Sequence[Source], device: int, gate: GivenGate) -> None:
    """Waits until any receiver has packets, and carries them through the gate into the TUN device.

    `select` takes receivers as they are. `receiver.receive()` returns the next packet, or raises BlockingIOError if
    there is none any more. No receiver may give more than AT_ONCE packets before the others have their turn. What the
    gate keeps out is counted in `gate.reasons`, and what the device does not take (OSError) as Reason.SEND_FAILED.
    """
    raise NotImplementedError("step 3: carry packets from the receivers into the device")


def ip(*words: str) -> None:
    """Has `ip` do something, such as ip("link", "set", "maglev0", "up"); given."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


class HeldVips:
    """The VIPs that this machine holds, until `undo`."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        """Has the kernel be silent about VIPs on the wire; `undo.callback(function, …)` is for what must be undone."""
        raise NotImplementedError("step 4: keep ARP silent about addresses that are not the wire's")

    def follow(self, vips: Collection[Network]) -> None:
        """Holds these VIPs from now on, and no others. `str(vip)` is 192.0.2.1/32 or 2001:db8::1/128, for example.

        A VIP may be there already, left behind by an endpoint that was killed; that is no error.
        """
        raise NotImplementedError("step 4: put the VIPs on the loopback interface, and take others away")


def make_tun_device(undo: contextlib.ExitStack) -> int:
    """Makes the TUN device maglev0; returns the descriptor that takes packets for it.

    It must be up, and the kernel must take what comes out of it, though answers to that leave by another interface.
    """
    device = os.open("/dev/net/tun", os.O_RDWR)
    undo.callback(os.close, device)
    name = f"{DEVICE}0"
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    raise NotImplementedError("step 5: bring the device up, and have the kernel take what comes out of it")


def troubles_of(machine: Machine, vips: Collection[Address], own: Address) -> frozenset[Trouble]:
    """Returns what keeps an endpoint's machine from answering for VIPs; to `own`, its address, Maglevs send.

    `machine.interfaces["lo"]` has `mtu_bytes`, `addresses` and `settings` (`rp_filter`, `arp_ignore`, `arp_announce`);
    so has every other, and `machine.all` has the settings for all. Packets come over the interface that has `own`, in
    GRE, and out of the interfaces whose names begin with DEVICE.
    """
    raise NotImplementedError("step 6: say what is wrong with a machine")
