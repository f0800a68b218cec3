"""What can be seen of a running lab, taken at one moment: immutable, and free of any judgement.

Who judges is `verify`; `sampler` looks again and again. Looking starts no program: kernels are asked over netlink, BIRD
and the forwarders over their control sockets.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maglev.engine.control import Client, ControlError

from . import fabric, netlink
from .errors import LabError
from .nodes import COUNTERS, Router, session_name
from .usage import Usage

if TYPE_CHECKING:
    from .connections import Connection

ESTABLISHED = "Established"  # BGP's word for a session that works (RFC 4271 §8.2.2)
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

    ecmp: Mapping[str, tuple[str, ...]]  # VIP: next hops in the kernel's forwarding table
    sessions: Mapping[str, str]  # Maglev: state of its BGP sessions, one over each family
    packets_to: Mapping[str, int]  # Maglev, or router of another AS: packets to VIPs that were sent to it
    packets_returned: Mapping[str, int]  # Maglev: packets from VIPs that crossed its link
    flows_to: Mapping[str, int] = field(default_factory=dict)  # the same: SYNs to VIPs that were sent to it
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
    """Returns what a router does with VIPs, from the kernel's tables, BIRD and the packet counters."""
    counted = netlink.counters(router.pid, COUNTERS)
    states = bird_answer(router.directory / "bird.ctl", "show protocols")
    return RouterView(
        ecmp(router),
        _sessions(states, [other.node.name for _, other in (*router.neighbours("maglev"), *router.peers())]),
        _named(counted, "to_"),
        _named(counted, "return_"),
        _named(counted, "flows_"),
        _named(counted, "answers_"),
    )


def _named(counted: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counted.items() if name.startswith(prefix)}


def ecmp(router: Router) -> dict[str, tuple[str, ...]]:
    """Returns the next hops of every VIP of both families in the router's kernel, in the order of addresses."""
    return fabric.within(netlink.bird_routes(router.pid), router.vip_prefixes.values())


def bird_answer(control: Path, command: str) -> str:
    """Returns what BIRD answers to a command, without the codes at the lines' beginnings; "" if it does not answer.

    BIRD's lines begin with four digits and a minus, the last with four digits and a space, or with a space alone where
    the code is that of the line before (BIRD's doc/reply_codes).
    """
    with socket.socket(socket.AF_UNIX) as bird, contextlib.suppress(OSError):
        bird.settimeout(ANSWER_TIMEOUT_S)
        bird.connect(str(control))
        with bird.makefile("r", encoding="utf-8", errors="replace") as lines:
            lines.readline()  # who it is
            bird.sendall(command.encode() + b"\n")
            answer = []
            for line in lines:
                answer.append(line[1:] if line.startswith(" ") else line[5:])
                if line[:4].isdigit() and line[4:5] == " ":
                    break
            return "".join(answer)
    return ""


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
