"""Which way a lab's kernels send a packet, from node to node: each is asked in its own namespace (ip-route(8)).

A kernel that spreads flows over several next hops says which one a flow of TCP or UDP over IPv4 gets. For IPv6, and for
GRE, its answer is hashed in another way than packets are: then all next hops are named.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

Run = Callable[..., "subprocess.CompletedProcess[str]"]  # a command's words -> what it says, on one node

MOST_HOPS = 16  # more is a loop
OR = "|"  # between the names of next hops of which any may be meant


class Paths:
    """The nodes of a lab, how to run commands on each, and the addresses that each has."""

    def __init__(self, nodes: Mapping[str, Run]) -> None:
        self._nodes = nodes

    @cached_property
    def _places(self) -> Mapping[str, tuple[str, str]]:
        return {address: (name, link) for name, run in self._nodes.items() for address, link in _addresses(run)}

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Returns the node that has each address, of all but loopback interfaces."""
        return {address: name for address, (name, _) in self._places.items()}

    def follow(self, start: str, destination: str, flow: Sequence[str], until: Collection[str] = ()) -> list[str]:
        """Returns the nodes that a packet meets after `start`, to the one that has its destination or is of `until`.

        `flow` is what else is known of the packet, in the words of `ip route get`. A node that cannot be found, or
        that nobody knows a way from, ends the list. Nodes of which any may be meant stand together: `spine1|spine2`.
        """
        met: list[str] = []
        node, link = start, ""
        while len(met) < MOST_HOPS and node in self._nodes:
            comes_in = ["iif", link] if link else []
            hops = self._next(node, destination, [*flow, *comes_in])
            found = sorted(self._places[each] for each in hops if each in self.names)
            if not found:
                break
            met.append(OR.join(dict.fromkeys(name for name, _ in found)))
            node, link = found[0]  # and if any may be meant, they know the same ways on
            if node in until or (destination in self.names and node == self.names[destination]):
                break
        return met

    def _next(self, node: str, destination: str, flow: Sequence[str]) -> list[str]:
        """Returns the addresses of a node's next hops for a packet: the one that is chosen, or all."""
        chosen = self._ask(node, destination, *flow)
        if chosen is None:
            return []
        if "ipproto" in flow and ":" not in destination:
            return [_gateway(chosen) or destination]
        matched = self._ask(node, "fibmatch", destination, *flow) or chosen
        return [_gateway(each) or destination for each in matched.get("nexthops", [matched])]

    def _ask(self, node: str, *words: str) -> Mapping[str, Any] | None:
        answer = self._nodes[node]("ip", "-j", "route", "get", *words).stdout
        routes = json.loads(answer) if answer.strip() else []
        return routes[0] if routes else None


def _gateway(route: Mapping[str, Any]) -> str:
    return str(route.get("gateway", ""))


def _addresses(run: Run) -> Iterator[tuple[str, str]]:
    """Yields the addresses of a node and the interface that has each, but for its loopback, where VIPs are."""
    for link in json.loads(run("ip", "-j", "address").stdout or "[]"):
        if link["ifname"] != "lo":
            yield from ((held["local"], link["ifname"]) for held in link["addr_info"] if "local" in held)
