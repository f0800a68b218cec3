"""What can be seen of a running lab, taken at one moment: immutable, and free of any judgement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maglev.engine.control import ControlError, request

from .nodes import Router, session_name

ESTABLISHED = "Established"  # BGP's word for a session that works (RFC 4271 §8.2.2)


@dataclass(frozen=True)
class MaglevView:
    """What a Maglev says of itself: the documents of its control socket (see ARCHITECTURE.md)."""

    status: Mapping[str, Any]
    statistics: Mapping[str, Any]


@dataclass(frozen=True)
class RouterView:
    """What a router does with VIPs."""

    ecmp: Mapping[str, tuple[str, ...]]  # VIP: next hops in the kernel's forwarding table
    sessions: Mapping[str, str]  # Maglev: state of its BGP sessions, one over each family
    packets_to: Mapping[str, int]  # Maglev: packets to VIPs that were sent to it
    packets_returned: Mapping[str, int]  # Maglev: packets from VIPs that crossed its link


@dataclass(frozen=True)
class Snapshot:
    """A lab at one moment."""

    maglevs: Mapping[str, MaglevView | None]  # None: its forwarder does not answer
    routers: Mapping[str, RouterView]

    def ecmp_packets(self) -> dict[str, int]:
        """Returns how many packets to VIPs the routers have sent to each Maglev."""
        totals = dict.fromkeys(self.maglevs, 0)
        for router in self.routers.values():
            for maglev, packets in router.packets_to.items():
                totals[maglev] += packets
        return totals

    def return_packets(self) -> int:
        """Returns how many packets from VIPs have crossed a Maglev's link: none, under direct server return."""
        return sum(sum(router.packets_returned.values()) for router in self.routers.values())


def maglev_view(control: Path) -> MaglevView | None:
    """Returns what a Maglev says of itself, None if it does not answer."""
    try:
        return MaglevView(request(control, "GET", "/status"), request(control, "GET", "/statistics"))
    except ControlError:
        return None


def router_view(router: Router) -> RouterView:
    """Returns what a router does with VIPs, from the kernel's tables, BIRD and the packet counters."""
    counters = _counters(router)
    return RouterView(
        ecmp(router),
        _sessions(router.birdc("show", "protocols"), [other.node.name for _, other in router.neighbours("maglev")]),
        {name.removeprefix("to_"): count for name, count in counters.items() if name.startswith("to_")},
        {name.removeprefix("return_"): count for name, count in counters.items() if name.startswith("return_")},
    )


def ecmp(router: Router) -> dict[str, tuple[str, ...]]:
    """Returns the next hops of every VIP of both families in the router's kernel, in the order of addresses."""
    routes = json.loads(router.run("ip", "-j", "route", "show", "table", "all", "proto", "bird").stdout or "[]")
    return {
        route["dst"]: tuple(sorted(hop["gateway"] for hop in route.get("nexthops", [route]) if _is_usable(hop)))
        for route in routes
        if "table" not in route  # others than the main one are named
    }


def _is_usable(hop: Mapping[str, Any]) -> bool:
    return not {"dead", "linkdown"} & set(hop.get("flags", []))


def _counters(router: Router) -> dict[str, int]:
    document = json.loads(router.run("nft", "-j", "list", "counters", "table", "inet", "maglab").stdout)
    counters = (entry["counter"] for entry in document["nftables"] if "counter" in entry)
    return {counter["name"]: counter["packets"] for counter in counters}


def _sessions(table: str, maglevs: Sequence[str]) -> dict[str, str]:
    """Returns how a router's sessions with each Maglev are: the same of all its families, or what is amiss with one.

    Reads BIRD's `show protocols`: name, protocol, table, state, since, and what BGP says of itself.
    """
    rows = (line.split() for line in table.splitlines())
    states = {row[0]: row[5] if len(row) > 5 else row[3] for row in rows if len(row) > 3 and row[1] == "BGP"}
    found: dict[str, str] = {}
    for maglev in maglevs:
        each = [states[name] for version in (4, 6) if (name := session_name(maglev, version)) in states]
        found[maglev] = next((state for state in each if state != ESTABLISHED), ESTABLISHED)
    return found
