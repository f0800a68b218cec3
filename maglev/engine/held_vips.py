"""The VIPs that an endpoint holds: its kernel answers for them, and nobody on the wire is told so.

Addresses go to the loopback interface, prefixes become local routes. ARP is kept silent about them; in IPv6 the kernel
speaks for no address that is on another interface.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..flow import Address
from ..lingering import Network
from .machine import set_sysctl

LOCAL_TABLE = 255  # RT_TABLE_LOCAL in linux/rtnetlink.h, as RT_SCOPE_HOST and RT_SCOPE_UNIVERSE
HOST_SCOPE = {4: 254, 6: 0}  # IP version: scope of routes to this machine
SOCKETS = tuple(Path("/proc/thread-self/net", name) for name in ("tcp", "tcp6"))  # proc(5)
LOCAL_ADDRESS, STATE = 1, 3  # columns there
IDLE_STATES = ("06", "07", "0A")  # TIME_WAIT, CLOSE, LISTEN: nobody sends or waits there any more (net/tcp_states.h)


class HeldVips:
    """The VIPs that this machine holds, until `undo`."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        set_sysctl("all", "arp_ignore", 1, undo)
        set_sysctl("all", "arp_announce", 2, undo)
        self._held: frozenset[Network] = frozenset()
        undo.callback(self.follow, ())

    def follow(self, vips: Collection[Network]) -> None:
        """Holds these VIPs from now on, and no others; what is held already is not touched."""
        wanted = frozenset(vips)
        for vip in wanted - self._held:
            with contextlib.suppress(NetlinkError):  # already there: left behind by an endpoint that was killed
                _hold("add", vip)
        for vip in self._held - wanted:
            with contextlib.suppress(NetlinkError):
                _hold("del", vip)
        self._held = wanted


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


def connected_addresses() -> frozenset[Address]:
    """Returns this machine's addresses at which TCP connections are open, whatever holds them."""
    return frozenset(
        _address(columns[LOCAL_ADDRESS].partition(":")[0])
        for file in SOCKETS
        if file.exists()
        for line in file.read_text().splitlines()[1:]
        if (columns := line.split())[STATE] not in IDLE_STATES
    )


def _address(words: str) -> Address:
    """Reads an address as the kernel prints it: 32-bit words in hex, each in the machine's own byte order."""
    packed = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    address = ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address
