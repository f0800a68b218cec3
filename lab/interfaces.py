"""A node's interfaces: what a topology says of them, and how they are made to behave like wires.

A topology gives each interface `address`, perhaps `address6` (both with prefix lengths), `mtu` and `link_address`, as
parameters of Mininet's `Intf`. Only the standard library, as all that nodes use.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from ipaddress import ip_interface
from typing import Any

from . import namespace
from .errors import LabError

OUTER_MTU_BYTES, INNER_MTU_BYTES = 1500, 1600  # before the routers; behind them, where GRE adds 24 bytes
SYSCTLS = {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"}
# An address may be used soon, instead of a second after it was given (RFC 4862 §5.4), and stays when a link is down, as
# in IPv4; none comes from a router. A new link address is told to all neighbours (RFC 4861 §7.2.6).
IPV6_SYSCTLS = {"accept_dad": "0", "keep_addr_on_down": "1", "accept_ra": "0", "ndisc_notify": "1"}


def networks_of(interface: Any) -> list[str]:
    """Returns what a topology gave an interface, with prefix lengths: `address`, and perhaps `address6`."""
    return [interface.params[name] for name in ("address", "address6") if name in interface.params]


def addresses_of(interface: Any) -> dict[int, str]:
    """Returns an interface's addresses by IP version, IPv4 first, without their prefix lengths."""
    return dict(map(_version_and_address, networks_of(interface)))


@cache  # asked thousands of times while a large lab converges
def _version_and_address(network: str) -> tuple[int, str]:
    parsed = ip_interface(network)
    return parsed.version, str(parsed.ip)


def ends_of(own: Any) -> list[Any]:
    """Returns the interfaces that an interface's link leads to: the other end, or through a switch all other ends."""
    other = _far_end(own)
    if getattr(other.node, "role", "") != "switch":
        return [other]
    return [_far_end(port) for port in other.node.intfList() if port is not other]


def _far_end(interface: Any) -> Any:
    return interface.link.intf2 if interface.link.intf1 is interface else interface.link.intf1


def lines_of(interface: Any) -> Iterator[str]:
    """Yields what `ip` is to do with an interface."""
    mtu, link_address = interface.params.get("mtu", OUTER_MTU_BYTES), interface.params.get("link_address")
    for network in networks_of(interface):
        # BIRD binds BFD's socket when a link comes up, and tries no second time if the address is still tentative then.
        at_once = " nodad" if ip_interface(network).version == 6 else ""
        yield f"address add {network} dev {interface}{at_once}"
    yield f"link set {interface} mtu {mtu} {f'address {link_address} ' if link_address else ''}up"


def set_up(names: Sequence[str], sysctls: Mapping[str, str], lines: Sequence[str], environment: dict[str, str]) -> None:
    """Makes the interfaces of the namespace that the caller is in behave like wires, then has `ip` do some lines."""
    namespace.set_sysctls({**SYSCTLS, **sysctls})
    for name in names:
        namespace.set_sysctls({f"net.ipv4.conf.{name}.rp_filter": "0"})
        namespace.set_sysctls({f"net.ipv6.conf.{name}.{field}": value for field, value in IPV6_SYSCTLS.items()})
    namespace.switch_off_offloads(names)  # veth would leave checksums undone and merge segments: not so on a wire
    text = "\n".join(["link set lo up", *lines])
    done = subprocess.run(
        ["ip", "-batch", "-"], input=text, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        raise LabError(f"ip -batch: {(done.stderr or done.stdout).strip()}")
