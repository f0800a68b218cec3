"""By which Maglev each flow goes: asked of the routers' kernels, which write down every packet to a VIP that they send.

A flow that has been to two Maglevs since the record began has moved. Flows of TCP and UDP only: others have no ports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .nodes import NFT_FAMILIES, Router
from .waiting import wait_until

TABLE = "maglab_ways"
MOST_FLOWS = 1 << 17  # the kernel forgets none: it takes no more
SETS = {4: ("ways4", "ipv4_addr"), 6: ("ways6", "ipv6_addr")}


@dataclass(frozen=True, order=True)
class Flow:
    """A client's flow to a VIP."""

    client: str  # address
    port: int
    vip_port: int


Ways = Mapping[Flow, frozenset[str]]  # the Maglevs that it was sent to


class Record:
    """What the routers write down while this lasts: a context manager."""

    def __init__(self, routers: Sequence[Router]) -> None:
        self._routers = [router for router in routers if router.neighbours("maglev")]

    def __enter__(self) -> Record:
        for router in self._routers:
            router.run("nft", "-f", "-", text=_rules(router))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for router in self._routers:
            router.run("nft", "delete", "table", router.nft_family, TABLE, check=False)

    def forget(self) -> None:
        """Begins anew."""
        for router in self._routers:
            lines = (f"flush set {router.nft_family} {TABLE} {name}\n" for name, _ in SETS.values())
            router.run("nft", "-f", "-", text="".join(lines))

    def ways(self) -> Ways:
        """Returns all flows seen since the record began."""
        found: dict[Flow, set[str]] = {}
        for router in self._routers:
            names = {str(own): other.node.name for own, other in router.neighbours("maglev")}
            for flow, interface in _seen(router):
                found.setdefault(flow, set()).add(names[interface])
        return {flow: frozenset(maglevs) for flow, maglevs in found.items()}

    def wait(self, flows: int, timeout_s: float = 10.0) -> Ways:
        """Returns the ways of so many flows, as soon as each has sent a packet."""

        def missing() -> str:
            seen = len(self.ways())
            return "" if seen >= flows else f"{seen} of {flows} flows have sent a packet"

        wait_until(missing, timeout_s, "a packet of every flow")
        return self.ways()


def moved(before: Ways, after: Ways) -> int:
    """Returns how many flows of both go by other Maglevs after than before."""
    return sum(before[flow] != after[flow] for flow in before.keys() & after.keys())


def _rules(router: Router) -> str:
    sets = "".join(
        f"set {name} {{ type ifname . {address} . inet_service . inet_service; flags dynamic; size {MOST_FLOWS}; }}\n"
        for name, address in SETS.values()
    )
    names = [str(own) for own, _ in router.neighbours("maglev")]
    interfaces = ", ".join(f'"{name}"' for name in names)
    rules = "".join(
        f"oifname {{ {interfaces} }} {family} daddr {router.vip_prefixes[version]} meta l4proto {{ tcp, udp }} "
        f"add @{SETS[version][0]} {{ oifname . {family} saddr . th sport . th dport }}\n"
        for version, family in NFT_FAMILIES.items()
    )
    hook = f"type filter hook {router.hook_of_leaving(names)} priority 1;"
    return f"table {router.nft_family} {TABLE} {{\n{sets}chain leaving {{\n{hook}\n{rules}}}\n}}\n"


def _seen(router: Router) -> list[tuple[Flow, str]]:
    printed = router.run("nft", "-j", "list", "table", router.nft_family, TABLE).stdout
    listed: list[Any] = json.loads(printed)["nftables"]
    elements = [element["concat"] for entry in listed if "set" in entry for element in entry["set"].get("elem", [])]
    return [(Flow(client, port, vip_port), interface) for interface, client, port, vip_port in elements]
