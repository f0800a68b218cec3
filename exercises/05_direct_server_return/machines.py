"""Machines that endpoints run on: made up, with what is wrong with each by the kernel's documentation; and a lab's."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import Any

from lab.classroom import Case
from lab.classroom.wire import ADDRESSES, ENDPOINT
from lab.errors import LabError, NotInTime
from lab.waiting import wait_until
from maglev.direct_return import Interface, Machine, Settings, Trouble
from maglev.engine.control import ControlError, request

OWN, VIP = ADDRESSES[ENDPOINT], "192.0.2.1"  # what a machine should hold
SETTLED_S = 5.0  # for an endpoint to say what it finds


def a_machine(of_all: Settings, of_wire: Settings, of_tunnel: Settings, own: Any, mtu: int, vip: str = "lo") -> Machine:
    """Returns a machine with these settings, its address `own` on a link of this MTU, and the VIP on an interface."""
    held: dict[str, set[Any]] = {"lo": {ip_address("127.0.0.1")}, "s1-eth0": {own}, "maglev0": set(), "eth9": set()}
    held.get(vip, set()).add(ip_address(VIP))
    mtus = {"lo": 65536, "s1-eth0": mtu, "maglev0": 65511, "eth9": 1500}
    settings = {"lo": Settings(), "s1-eth0": of_wire, "maglev0": of_tunnel, "eth9": Settings(1, 0, 0)}
    return Machine({name: Interface(mtus[name], frozenset(held[name]), settings[name]) for name in held}, of_all)


def random_machine(case: Case) -> tuple[Machine, set[Trouble]]:
    """Returns a machine, and what is wrong with it, by the kernel's own documentation."""
    choose = case.random.choice
    of_all, wire, tunnel = (
        Settings(choose([0, 0, 0, 1, 2]), choose([0, 1, 1, 2]), choose([0, 2, 2])) for _ in range(3)
    )
    vip, mtu = choose(["lo", "lo", "s1-eth0", "nowhere"]), choose([1500, 1520, 1524, 1600])
    found = set()
    if vip != "lo":
        found.add(Trouble.NO_VIP)
    if (wire.arp_ignore == 0 and of_all.arp_ignore == 0) or (wire.arp_announce != 2 and of_all.arp_announce != 2):
        found.add(Trouble.ARP)
    if 1 in (filters := (of_all.rp_filter, tunnel.rp_filter)) and 2 not in filters:
        found.add(Trouble.REVERSE_PATH)
    if mtu < 1524:
        found.add(Trouble.MTU)
    return a_machine(of_all, wire, tunnel, ip_address(OWN), mtu, vip), found


def in_words(machine: Machine) -> str:
    """Returns a machine in words."""

    def words(settings: Settings) -> str:
        numbers = (settings.rp_filter, settings.arp_ignore, settings.arp_announce)
        return "rp_filter {}, arp_ignore {}, arp_announce {}".format(*numbers)

    wire, tunnel = machine.interfaces["s1-eth0"], machine.interfaces["maglev0"]
    at = [name for name, each in machine.interfaces.items() if ip_address(VIP) in each.addresses]
    return (
        f"all: {words(machine.all)}; s1-eth0: MTU {wire.mtu_bytes}, {words(wire.settings)}; "
        f"maglev0: {words(tunnel.settings)}; {VIP} is on {at[0] if at else 'none'}"
    )


# In a lab


def found_in(lab: Any, name: str, expected: set[str]) -> set[str]:
    """Returns what an endpoint says is wrong with it: what is expected, or its last word if that does not come."""
    found: set[str] = set()

    def differs() -> str:
        found.clear()
        found.update(_troubles(lab.node(name)))
        return "" if found == expected else "it says otherwise"

    with contextlib.suppress(NotInTime):
        wait_until(differs, SETTLED_S, name)
    return found


def _troubles(node: Any) -> list[str]:
    """Returns what an endpoint says is wrong; LabError with the end of its log if it does not answer."""
    try:
        return list(request(node.control, "GET", "/status")["troubles"])
    except ControlError:
        log = (node.directory / "endpoint.log").read_text(errors="replace")
        errors = [line for line in log.splitlines() if "Error" in line]
        raise LabError(f"{node.name} does not say what it finds: {errors[-1] if errors else log[-200:]}") from None


def healthy(lab: Any) -> int:
    """Returns how many endpoints m1 finds healthy."""
    return len(lab.snapshot().maglevs["m1"].status["pools"]["web"]["healthy"])
