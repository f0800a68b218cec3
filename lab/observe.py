"""What can be seen of a running lab, taken at one moment: immutable, and free of any judgement.

Who judges is `verify`; `sampler` looks again and again. Looking starts no program: kernels are asked over netlink,
routing daemons, switches and forwarders over their control sockets.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maglev.engine.control import Client, ControlError

from .bird import ESTABLISHED as ESTABLISHED
from .errors import LabError
from .nodes import Router
from .usage import Usage

if TYPE_CHECKING:
    from .connections import Connection

ANSWER_TIMEOUT_S = 1.0  # for a daemon on its control socket

Slots = tuple[str | None, ...]  # a lookup table: the endpoint's address in each slot


@dataclass(frozen=True)
class MaglevView:
    """What a Maglev says of itself: the documents of its control socket (see ARCHITECTURE.md)."""

    status: Mapping[str, Any]
    statistics: Mapping[str, Any]
    health: Mapping[str, Any] = field(default_factory=dict)  # every check
    tables: Mapping[str, Slots] = field(default_factory=dict)  # pool: lookup table; only where it was asked for


@dataclass(frozen=True)
class RouterView:
    """What a router does with VIPs."""

    ecmp: Mapping[str, tuple[str, ...]]  # VIP: next hops in the forwarding table, the kernel's or the switch's
    sessions: Mapping[str, str]  # Maglev: state of its BGP sessions, one over each family
    packets_to: Mapping[str, int]  # Maglev, or router of another AS: packets to VIPs that were sent to it
    packets_returned: Mapping[str, int]  # Maglev: packets from VIPs that crossed its link
    flows_to: Mapping[str, int] = field(default_factory=dict)  # the same: SYNs to VIPs that were sent to it
    buckets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # VIP, Maglev: packets, where groups count
    answers_to: Mapping[str, int] = field(default_factory=dict)  # router of another AS: packets from VIPs, sent to it


@dataclass(frozen=True)
class Snapshot:
    """A lab at one moment."""

    maglevs: Mapping[str, MaglevView | None]  # None: its forwarder does not answer
    routers: Mapping[str, RouterView]
    nodes: Mapping[str, Usage] = field(default_factory=dict)  # every node: processor time and memory
    connections: tuple[Connection, ...] = ()  # all that the lab has opened, and their fates
    names: Mapping[str, str] = field(default_factory=dict)  # address: the node that has it
    at_s: float = 0.0  # on the lab's timeline

    def ecmp_packets(self) -> dict[str, int]:
        """Returns how many packets to VIPs the routers have sent to each Maglev."""
        return self._to_maglevs(router.packets_to for router in self.routers.values())

    def ecmp_flows(self) -> dict[str, int]:
        """Returns how many TCP flows (SYNs) the routers have sent to each Maglev."""
        return self._to_maglevs(router.flows_to for router in self.routers.values())

    def _to_maglevs(self, counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
        totals = Counter(dict.fromkeys(self.maglevs, 0))
        for counts in counted:
            totals.update({name: count for name, count in counts.items() if name in totals})
        return dict(totals)

    def return_packets(self) -> int:
        """Returns how many packets from VIPs have crossed a Maglev's link: none, under direct server return."""
        return sum(sum(router.packets_returned.values()) for router in self.routers.values())

    def addresses_of(self, node: str) -> list[str]:
        """Returns all addresses of a node."""
        return [address for address, name in self.names.items() if name == node]

    def table_shares(self, pool: str) -> dict[str, float]:
        """Returns each endpoint's share of a pool's lookup table; LabError if this snapshot has no whole tables."""
        tables = [view.tables[pool] for view in self.maglevs.values() if view and pool in view.tables]
        if not tables:
            raise LabError(f"no lookup table of a pool {pool!r} in this snapshot: take one with tables=True")
        counts = Counter(tables[0])
        return {
            self.names.get(backend, backend): count / len(tables[0]) for backend, count in counts.items() if backend
        }


def maglev_view(control: Path, health: bool = False, tables: bool = False) -> MaglevView | None:
    """Returns what a Maglev says of itself, None if it does not answer; health and whole tables only if asked for."""
    with contextlib.closing(Client(control, ANSWER_TIMEOUT_S)) as client, contextlib.suppress(ControlError):
        return MaglevView(
            client.request("GET", "/status"),
            client.request("GET", "/statistics"),
            client.request("GET", "/health") if health else {},
            _tables(client.request("GET", "/tables")) if tables else {},
        )
    return None


def _tables(document: Mapping[str, Any]) -> dict[str, Slots]:
    return {pool: tuple(table["slots"]) for pool, table in document.items()}


def router_view(router: Router) -> RouterView:
    """Returns what a router does with VIPs: each kind of router knows where that is written."""
    routing = router.routing
    counted = routing.counters()
    return RouterView(
        routing.ecmp(),
        routing.sessions(),
        _named(counted, "to_"),
        _named(counted, "return_"),
        _named(counted, "flows_"),
        routing.buckets(),
        _named(counted, "answers_"),
    )


def ecmp(router: Router) -> dict[str, tuple[str, ...]]:
    """Returns the next hops of every VIP of both families in a router's forwarding table, in the order of addresses."""
    return router.routing.ecmp()


def watched(router: Router) -> frozenset[str]:
    """Returns the addresses of the routers that a router's BFD watches, and hears."""
    return router.routing.watched()


def _named(counted: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counted.items() if name.startswith(prefix)}
