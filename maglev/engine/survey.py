"""Reads what `direct_return` judges: this machine's interfaces, their addresses, and the kernel's settings for them."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_address
from pathlib import Path

from pyroute2 import IPRoute

from ..direct_return import Interface, Machine, Settings
from ..flow import Address

SETTINGS = Path("/proc/sys/net/ipv4/conf")  # of the namespace of the thread that reads


def machine() -> Machine:
    """Returns this machine as it is set now."""
    with IPRoute() as kernel:
        links = {link["index"]: (link.get("ifname"), link.get("mtu")) for link in kernel.get_links()}
        addresses: dict[int, set[Address]] = {number: set() for number in links}
        for held in kernel.get_addr():
            addresses[held["index"]].add(ip_address(held.get("local") or held.get("address")))
    interfaces = {
        name: Interface(mtu, frozenset(addresses[number]), settings(name)) for number, (name, mtu) in links.items()
    }
    return Machine(interfaces, settings("all"))


def settings(name: str) -> Settings:
    """Returns the settings of an interface, or of all."""
    return Settings(**{field.name: int((SETTINGS / name / field.name).read_text()) for field in fields(Settings)})
