"""What keeps a machine from answering clients as the VIP (direct server return, Maglev §2.1), read off its settings.

Nothing of this shows in a health check of the machine's own address: it answers, and clients do not get through. Pure:
`engine.survey` reads the settings. Left out is what the network does, and IPv6's own settings: there the kernel filters
no reverse path, and speaks for no address that is on another interface.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .flow import Address
from .gre import OVERHEAD_BYTES, OVERHEAD_V6_BYTES

LOOPBACK = "lo"
TUNNEL = "maglev"  # out of devices with such names come packets that were in GRE: maglev0, maglev1, …
CLIENT_MTU_BYTES = 1500  # of the largest packet that a client sends, which must not be cut on its way from a Maglev
STRICT = 1  # of rp_filter; 2 asks only whether there is a way back (ip-sysctl.rst)


class Trouble(StrEnum):
    """One thing that is not as it should be."""

    NO_VIP = "no_vip"  # a VIP is no address of the loopback interface: the kernel does not take its packets
    ARP = "arp"  # the wire is told that this machine has the VIP: it asks, or answers, for it
    REVERSE_PATH = "reverse_path"  # what comes out of GRE is dropped, because answers leave by another interface
    MTU = "mtu"  # a client's largest packet does not fit into GRE on the wire


@dataclass(frozen=True)
class Settings:
    """What `net.ipv4.conf` has for one interface, or for all: the kernel goes by the greater of the two numbers."""

    rp_filter: int = 0
    arp_ignore: int = 0
    arp_announce: int = 0


@dataclass(frozen=True)
class Interface:
    """A network interface."""

    mtu_bytes: int
    addresses: frozenset[Address] = frozenset()
    settings: Settings = Settings()


@dataclass(frozen=True)
class Machine:
    """An endpoint's machine, as its kernel is set: interfaces by name, and the settings for all of them."""

    interfaces: Mapping[str, Interface]
    all: Settings


def troubles_of(machine: Machine, vips: Collection[Address], own: Address) -> frozenset[Trouble]:
    """Returns what keeps a machine from answering for VIPs; to `own`, its address, Maglevs send."""
    wires = [interface for interface in machine.interfaces.values() if own in interface.addresses]
    tunnels = [each for name, each in machine.interfaces.items() if name.startswith(TUNNEL)]
    found = {
        Trouble.NO_VIP: not machine.interfaces[LOOPBACK].addresses.issuperset(vips),
        Trouble.ARP: any(_speaks(each.settings, machine.all) for each in wires),
        Trouble.REVERSE_PATH: any(max(each.settings.rp_filter, machine.all.rp_filter) == STRICT for each in tunnels),
        Trouble.MTU: any(each.mtu_bytes < CLIENT_MTU_BYTES + _overhead_bytes(own) for each in wires),
    }
    return frozenset(trouble for trouble, is_there in found.items() if is_there)


def _speaks(own: Settings, of_all: Settings) -> bool:
    """Says whether an interface answers for addresses of others, or asks in their name."""
    return max(own.arp_ignore, of_all.arp_ignore) < 1 or max(own.arp_announce, of_all.arp_announce) < 2


def _overhead_bytes(own: Address) -> int:
    return OVERHEAD_BYTES if own.version == 4 else OVERHEAD_V6_BYTES
