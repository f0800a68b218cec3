"""A rack: clients, one ECMP router, Maglevs and endpoints, on routed point-to-point links.

                          c1        c2                10.0.i.2   fd00:0:i::2   clients     MTU 1500
                            \\      /
                             \\    /
                  ............ r1 ............        10.x.i.1   fd00:x:i::1   router: BIRD, ECMP on the 5-tuple
                 /     |     /    |     \\     \\
               m1     m2   m3     s1 ... s4    s5     10.1.i.2   fd00:1:i::2   Maglevs     MTU 1600
                                                      10.2.i.2   fd00:2:i::2   endpoints   MTU 1600

Everybody has addresses of both families. VIPs are host routes out of 192.0.2.0/24 and 2001:db8::/64, announced by the
Maglevs; the same endpoints serve them all. A client's packet goes c, r1, m, r1, s; the answer goes s, r1, c (direct
server return). Behind the router links carry 100 bytes more, for GRE's 24, or 44 over IPv6.

    sudo mn --custom topologies/rack.py --topo rack,maglevs=4
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from mininet.topo import Topo

from lab.nodes import INNER_MTU_BYTES, OUTER_MTU_BYTES, Client, Endpoint, Maglev, Router
from lab.tcp_md5 import checked

VIP, VIP_PREFIX = "192.0.2.1", "192.0.2.0/24"
VIP6, VIP_PREFIX6 = "2001:db8::1", "2001:db8::/64"
LIMIT = 250  # addresses: one /24 a link, numbered by its third byte


class Rack(Topo):  # type: ignore[misc]
    """N Maglevs and K endpoints behind one router."""

    def build(
        self, maglevs: int = 3, endpoints: int = 5, clients: int = 2, bgp_password: str = "", **router: object
    ) -> None:
        """Wires the rack; ValueError for a number of nodes that is not from 1 to 250. `router` has r1's options.

        With a `bgp_password` router and Maglevs sign their BGP sessions; it is kept out of logs and process lists.
        """
        password = {"bgp_password": checked(bgp_password)}
        for what, number in (("maglevs", maglevs), ("endpoints", endpoints), ("clients", clients)):
            if not isinstance(number, int) or not 1 <= number <= LIMIT:
                raise ValueError(f"{what}={number!r} is not allowed; allowed: a whole number from 1 to {LIMIT}")
        self.cluster = cluster(maglevs, endpoints)
        self.addHost("r1", cls=Router, vip_prefix=VIP_PREFIX, vip_prefix6=VIP_PREFIX6, **password, **router)
        for number in range(1, clients + 1):
            self._add(f"c{number}", Client, f"0.{number}", OUTER_MTU_BYTES)
        for number in range(1, endpoints + 1):
            self._add(f"s{number}", Endpoint, f"2.{number}", INNER_MTU_BYTES, cluster=self.cluster)
        for number in range(1, maglevs + 1):
            self._add(f"m{number}", Maglev, f"1.{number}", INNER_MTU_BYTES, cluster=self.cluster, **password)

    def _add(self, name: str, cls: type, link: str, mtu: int, **options: object) -> None:
        network, network6 = f"10.{link}", f"fd00:{link.replace('.', ':')}:"
        self.addHost(name, cls=cls, default_route=f"{network}.1", default_route6=f"{network6}:1", **options)
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": mtu} for end in (2, 1)]
        self.addLink(name, "r1", params1=ends[0], params2=ends[1])


def cluster(maglevs: int, endpoints: int) -> dict[str, object]:
    """Returns the configuration of the rack's Maglevs: a web service, and one that says who it is."""
    check = {"type": "http", "port": 80, "path": "/healthz", "interval_s": 0.5, "timeout_s": 0.5, "rise": 2, "fall": 3}
    return {
        "shard": "default",
        "maglevs": [
            {"name": f"m{number}", "address": f"10.1.{number}.2", "address6": f"fd00:1:{number}::2"}
            for number in range(1, maglevs + 1)
        ],
        "pools": {
            "web": {
                "endpoints": [{"address": f"10.2.{number}.2", "weight": 1} for number in range(1, endpoints + 1)],
                "health_check": check,
            }
        },
        "vips": [
            {"name": "www", "address": VIP, "protocol": "tcp", "port": 80, "pool": "web"},
            {"name": "echo", "address": VIP, "protocol": "tcp", "port": 7, "pool": "web"},
            {"name": "datagrams", "address": VIP, "protocol": "udp", "port": 7, "pool": "web"},
            {"name": "www6", "address": VIP6, "protocol": "tcp", "port": 80, "pool": "web"},
            {"name": "echo6", "address": VIP6, "protocol": "tcp", "port": 7, "pool": "web"},
            {"name": "datagrams6", "address": VIP6, "protocol": "udp", "port": 7, "pool": "web"},
        ],
        "forwarder": {"engine": "auto", "table_size": 65537},
    }


topos = {"rack": Rack}
