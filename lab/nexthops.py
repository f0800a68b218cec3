"""Puts a router's routes into the kernel as resilient next-hop groups, which BIRD itself cannot.

BIRD writes what it has learnt into a table that nobody looks up. This daemon watches that table, and keeps in the main
one a route for each of its prefixes, whose next hops are a resilient group: when the group changes, flows keep their
next hop if it still is one, but for the share that new next hops must have (Linux: nexthop-group-resilient.rst).

    python -m lab.nexthops --table 100 --buckets 128 --idle-timer 0
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE

Hop = tuple[str, str]  # gateway, interface
Routes = Mapping[str, frozenset[Hop]]  # prefix: its next hops
MAIN_ROUTE = "proto bird table main"  # they are BIRD's routes, only put in otherwise
FIRST_GROUP = 1000  # ids of groups begin here; those of single next hops at 1


class Groups:
    """What has been put into the kernel: next hops and groups, by their ids."""

    def __init__(self, buckets: int, idle_timer_s: float) -> None:
        self._resilient = f"type resilient buckets {buckets} idle_timer {idle_timer_s:g}"
        self._hops: dict[Hop, int] = {}
        self._groups: dict[str, int] = {}
        self._routes: dict[str, frozenset[Hop]] = {}

    def update(self, wanted: Routes) -> list[str]:
        """Returns the commands of `ip -batch` that make the kernel serve `wanted`, and takes them as carried out."""
        if wanted == self._routes:
            return []
        gone = [prefix for prefix in self._routes if prefix not in wanted]
        changed = [prefix for prefix in wanted if wanted[prefix] != self._routes.get(prefix)]
        lines = self._add_hops(hop for prefix in changed for hop in sorted(wanted[prefix]))
        for prefix in changed:
            lines += self._serve(prefix, wanted[prefix])
        for prefix in gone:
            group = self._groups.pop(prefix)
            lines += [f"route del {prefix} {MAIN_ROUTE}", f"nexthop del id {group}"]
        self._routes = dict(wanted)
        return lines + self._drop_hops()

    def _add_hops(self, hops: Iterable[Hop]) -> list[str]:
        lines = []
        for gateway, interface in dict.fromkeys(hops):
            number = self._hops.setdefault((gateway, interface), _first_free(self._hops.values(), 1))
            lines.append(f"nexthop replace id {number} via {gateway} dev {interface}")
        return lines

    def _serve(self, prefix: str, hops: frozenset[Hop]) -> list[str]:
        group = self._groups.setdefault(prefix, _first_free(self._groups.values(), FIRST_GROUP))
        members = "/".join(str(self._hops[hop]) for hop in sorted(hops))
        return [f"nexthop replace id {group} group {members} {self._resilient}",
                f"route replace {prefix} nhid {group} {MAIN_ROUTE}"]  # fmt: skip

    def _drop_hops(self) -> list[str]:
        used = {hop for hops in self._routes.values() for hop in hops}
        unused = [hop for hop in self._hops if hop not in used]
        return [f"nexthop del id {self._hops.pop(hop)}" for hop in unused]


def _first_free(taken: Iterable[int], first: int) -> int:
    numbers = set(taken)
    return next(number for number in range(first, first + len(numbers) + 1) if number not in numbers)


def read(entries: Iterable[Mapping[str, Any]]) -> Routes:
    """Returns the routes that `ip -j route` lists."""
    return {
        entry["dst"]: frozenset((hop["gateway"], hop["dev"]) for hop in entry.get("nexthops", [entry]))
        for entry in entries
        if entry["dst"] != "default"
    }


def _table(table: int) -> Routes:
    routes: dict[str, frozenset[Hop]] = {}
    for family in ("-4", "-6"):
        listed = subprocess.run(
            ["ip", "-j", family, "route", "show", "table", str(table)], capture_output=True, text=True, check=False
        )
        if listed.returncode == 0:  # a table that has had no route yet does not exist
            routes |= read(json.loads(listed.stdout or "[]"))
    return routes


def follow(table: int, groups: Groups) -> None:
    """Keeps the main table as `table` says, for ever."""
    with IPRoute() as netlink:
        netlink.bind(groups=RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE)
        while True:
            if lines := groups.update(_table(table)):
                _apply(lines)
            while not any(message.get_attr("RTA_TABLE") == table for message in netlink.get()):
                pass


def _apply(lines: list[str]) -> None:
    """Carries out commands; what the kernel has taken away itself, as when a link went down, is passed over."""
    text = "\n".join(lines) + "\n"
    done = subprocess.run(["ip", "-force", "-batch", "-"], input=text, capture_output=True, text=True, check=False)
    if done.stderr:
        print(f"{text}{done.stderr}", end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, default=100, help="number of the table that BIRD writes (default: 100)")
    parser.add_argument("--buckets", type=int, default=128, help="buckets of each group (default: 128)")
    parser.add_argument("--idle-timer", type=float, default=0.0, metavar="S",
                        help="a bucket may move after S seconds without a packet; 0: at once (default)")  # fmt: skip
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    follow(options.table, Groups(options.buckets, options.idle_timer))


if __name__ == "__main__":
    main()
