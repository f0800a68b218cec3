"""Two shards of Maglevs behind one router: each serves VIPs of its own, and a flood on one leaves the other alone.

                          c1        c2                10.0.i.2   fd00:0:i::2   clients     MTU 1500
                            \\      /
                             \\    /
               .............. r1 ..............       10.x.i.1   fd00:x:i::1   router: BIRD, ECMP on the 5-tuple
              /     |      /      \\     |      \\
            m1     m2   s1..s3   m3    m4   s4..s6    10.1.i.2   fd00:1:i::2   Maglevs     MTU 1600
            `-shard a-'          `-shard b-'          10.2.i.2   fd00:2:i::2   endpoints   MTU 1600

    shard a   192.0.2.1   2001:db8::1   www, echo, datagrams, www6, …          served by s1 to s3
    shard b   192.0.2.2   2001:db8::2   b-www, b-echo, b-datagrams, b-www6, …  served by s4 to s6

The Maglevs of a shard announce its VIPs and no others, so the router sends them nothing else. One configuration
describes both: each Maglev and each VIP says its `shard`. Endpoints take packets from the Maglevs of either shard:
a VIP that moves from one to the other (`Lab.move_vip`) keeps its endpoints.

    sudo mn --custom topologies/sharded.py --topo sharded,maglevs=3
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from mininet.topo import Topo

from lab import allowed
from lab.interfaces import INNER_MTU_BYTES, OUTER_MTU_BYTES
from lab.nodes import Client, Endpoint, Maglev, Router

SHARDS = ("a", "b")
VIPS = {"a": ("192.0.2.1", "2001:db8::1"), "b": ("192.0.2.2", "2001:db8::2")}
PREFIX = {"a": "", "b": "b-"}  # of the names of a shard's VIPs
LIMIT = 125  # of a shard: one /24 a link, numbered by its third byte


class Sharded(Topo):  # type: ignore[misc]
    """Two shards of N Maglevs and K endpoints each, behind one router."""

    def build(self, maglevs: int = 2, endpoints: int = 3, clients: int = 2) -> None:
        """Wires the shards; `maglevs` and `endpoints` are those of each. ValueError for a number not from 1 to 125."""
        allowed.some(LIMIT, maglevs=maglevs, endpoints=endpoints, clients=clients)
        self.cluster = cluster(maglevs, endpoints)
        self.addHost("r1", cls=Router, vip_prefix="192.0.2.0/24", vip_prefix6="2001:db8::/64")
        for number in range(1, clients + 1):
            self._add(f"c{number}", Client, f"0.{number}", OUTER_MTU_BYTES)
        for number in range(1, len(SHARDS) * endpoints + 1):
            self._add(f"s{number}", Endpoint, f"2.{number}", INNER_MTU_BYTES, cluster=self.cluster)
        for number in range(1, len(SHARDS) * maglevs + 1):
            self._add(f"m{number}", Maglev, f"1.{number}", INNER_MTU_BYTES, cluster=self.cluster)

    def _add(self, name: str, cls: type, link: str, mtu: int, **options: object) -> None:
        network, network6 = f"10.{link}", f"fd00:{link.replace('.', ':')}:"
        self.addHost(name, cls=cls, default_route=f"{network}.1", default_route6=f"{network6}:1", **options)
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": mtu} for end in (2, 1)]
        self.addLink(name, "r1", params1=ends[0], params2=ends[1])


def cluster(maglevs: int, endpoints: int) -> dict[str, object]:
    """Returns the configuration of both shards, of so many Maglevs and endpoints each."""
    check = {"type": "http", "port": 80, "path": "/healthz", "interval_s": 0.5, "timeout_s": 0.5, "rise": 2, "fall": 3}
    return {
        "maglevs": [
            {"name": f"m{n}", "address": f"10.1.{n}.2", "address6": f"fd00:1:{n}::2", "shard": shard}
            for shard, n in _numbered(maglevs)
        ],
        "pools": {
            f"web-{shard}": {
                "endpoints": [
                    {"address": f"10.2.{n}.2", "weight": 1} for other, n in _numbered(endpoints) if other == shard
                ],
                "health_check": dict(check),
            }
            for shard in SHARDS
        },
        "vips": [vip for shard in SHARDS for vip in _vips(shard)],
        "forwarder": {"engine": "auto", "table_size": 65537},
    }


def _numbered(count: int) -> list[tuple[str, int]]:
    """Returns (shard, number) of all nodes of a kind, of which each shard has so many: the first shard's come first."""
    return [(shard, place * count + n) for place, shard in enumerate(SHARDS) for n in range(1, count + 1)]


def _vips(shard: str) -> list[dict[str, object]]:
    services = (("www", "tcp", 80), ("echo", "tcp", 7), ("datagrams", "udp", 7))
    return [
        {
            "name": f"{PREFIX[shard]}{name}{suffix}",
            "address": address,
            "protocol": protocol,
            "port": port,
            "pool": f"web-{shard}",
            "shard": shard,
        }
        for address, suffix in zip(VIPS[shard], ("", "6"), strict=True)
        for name, protocol, port in services
    ]


topos = {"sharded": Sharded}
