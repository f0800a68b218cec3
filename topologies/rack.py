"""A rack: clients, ECMP routers, Maglevs and endpoints. With one router, on routed point-to-point links:

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

With several routers, such as `routers=2`, a switch carries what lies behind them:

               c1    c3       c2    c4                10.0.i.2   fd00:0:i::2   clients     MTU 1500
                 \\  /           \\  /
                  r1             r2                   10.1.0.n   fd00:1::n     routers, on the switch's side
                   \\             /                    10.0.i.1   fd00:0:i::1   and on their clients'
                    ..... t1 .....                                             switch: the kernel's bridge
                   /    |   |     \\
                 m1    m2   s1 ... s5                 10.1.i.2   fd00:1:i::2   Maglevs     MTU 1600
                                                      10.2.i.2   fd00:2:i::2   endpoints   MTU 1600

Clients take the routers in turn. Every Maglev has a session with every router, and every router spreads over all
Maglevs. A client's packet goes c, r, m, s, for Maglevs and endpoints are neighbours here; the answer goes straight to
the client's router. Routers know each other's clients by static routes; so does everybody on the switch.

Routers run BIRD, or FRR (`router=frr`); all else is the same.

    sudo mn --custom topologies/rack.py --topo rack,maglevs=4
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from mininet.topo import Topo

from lab import allowed
from lab.frr import FrrRouter
from lab.interfaces import INNER_MTU_BYTES, OUTER_MTU_BYTES
from lab.nodes import MOST_PATHS, Client, Endpoint, Maglev, Router, Switch
from lab.tcp_md5 import checked

VIP, VIP_PREFIX = "192.0.2.1", "192.0.2.0/24"
VIP6, VIP_PREFIX6 = "2001:db8::1", "2001:db8::/64"
LIMIT = 250  # addresses: one /24 a link, numbered by its third byte
CLIENTS, MAGLEVS, ENDPOINTS = 0, 1, 2  # the second byte of their addresses


class Rack(Topo):  # type: ignore[misc]
    """N Maglevs and K endpoints behind one router, or behind several that share a switch."""

    router_class = Router
    own: Mapping[str, object] = {}  # what routers are told besides, by racks of other kinds

    def build(
        self, maglevs: int = 3, endpoints: int = 5, clients: int = 2, routers: int = 1, bgp_password: str = "",
        router: str = "bird",
    ) -> None:  # fmt: skip
        """Wires the rack; ValueError for a number of nodes that is not from 1 to 250, or 128 Maglevs.

        With a `bgp_password` routers and Maglevs sign their BGP sessions; it is kept out of logs and process lists.
        """
        self._speaking = {"bgp_password": checked(bgp_password)}
        allowed.some(MOST_PATHS, maglevs=maglevs)
        allowed.some(LIMIT, endpoints=endpoints, clients=clients, routers=routers)
        self.cluster = cluster(maglevs, endpoints)
        self._routers, self._clients = routers, clients
        self._router_options = {"vip_prefix": VIP_PREFIX, "vip_prefix6": VIP_PREFIX6, **self._speaking, **self.own}
        self.router_class = router_class(router, self.router_class)
        if routers == 1:
            self.addHost("r1", cls=self.router_class, **self._router_options)
        else:
            self._add_switch()
        for number in range(1, clients + 1):
            self._behind(f"r{self._router_of(number)}", f"c{number}", Client, CLIENTS, number, OUTER_MTU_BYTES)
        add = self._behind_r1 if routers == 1 else self._on_switch
        for number in range(1, endpoints + 1):
            add(f"s{number}", Endpoint, ENDPOINTS, number)
        for number in range(1, maglevs + 1):
            add(f"m{number}", Maglev, MAGLEVS, number)

    def _behind_r1(self, name: str, cls: type, kind: int, number: int) -> None:
        self._behind("r1", name, cls, kind, number, INNER_MTU_BYTES, **self._options(kind))

    def _options(self, kind: int) -> dict[str, object]:
        """Returns what Maglevs and endpoints are told."""
        return {"cluster": self.cluster, **(self._speaking if kind == MAGLEVS else {})}

    def _behind(self, router: str, name: str, cls: type, kind: int, number: int, mtu: int, **options: object) -> None:
        """Adds a node on a link of its own to a router."""
        network, network6 = f"10.{kind}.{number}", f"fd00:{kind}:{number}:"
        self.addHost(name, cls=cls, default_route=f"{network}.1", default_route6=f"{network6}:1", **options)
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": mtu} for end in (2, 1)]
        self.addLink(name, router, params1=ends[0], params2=ends[1])

    def _add_switch(self) -> None:
        """Adds the switch, and the routers on it, each before its clients: its first interface is the switch's."""
        self.addHost("t1", cls=Switch)
        for number in range(1, self._routers + 1):
            name = f"r{number}"
            others = [client for client in range(1, self._clients + 1) if self._router_of(client) != number]
            routes = [*_on_link(ENDPOINTS, f"{name}-eth0"), *self._routes_to(others)]
            self.addHost(name, cls=self.router_class, routes=routes, **self._router_options)
            self._link_to_switch(name, f"10.{MAGLEVS}.0.{number}/16", f"fd00:{MAGLEVS}::{number}/32")

    def _on_switch(self, name: str, cls: type, kind: int, number: int) -> None:
        """Adds a Maglev or an endpoint, which reaches all on the switch directly, and clients by their routers."""
        there = _on_link(ENDPOINTS if kind == MAGLEVS else MAGLEVS, f"{name}-eth0")
        hops = " ".join(f"nexthop via 10.{MAGLEVS}.0.{router}" for router in range(1, self._routers + 1))
        hops6 = " ".join(f"nexthop via fd00:{MAGLEVS}::{router}" for router in range(1, self._routers + 1))
        elsewhere = [f"0.0.0.0/0 {hops}", f"::/0 {hops6}"]
        routes = [*there, *self._routes_to(range(1, self._clients + 1)), *elsewhere]
        self.addHost(name, cls=cls, routes=routes, **self._options(kind))
        self._link_to_switch(
            name, f"10.{kind}.{number}.2/16", f"fd00:{kind}:{number}::2/32", f"02:00:0a:{kind:02x}:{number:02x}:02"
        )

    def _link_to_switch(self, name: str, address: str, address6: str, link_address: str | None = None) -> None:
        end = {"address": address, "address6": address6, "mtu": INNER_MTU_BYTES, "link_address": link_address}
        self.addLink(name, "t1", params1=end, params2={"mtu": INNER_MTU_BYTES})

    def _router_of(self, client: int) -> int:
        return (client - 1) % self._routers + 1

    def _routes_to(self, clients: Iterable[int]) -> list[str]:
        """Returns routes to clients by their routers' addresses on the switch."""
        ways = [(client, self._router_of(client)) for client in clients]
        routes = [f"10.{CLIENTS}.{client}.0/24 via 10.{MAGLEVS}.0.{router}" for client, router in ways]
        return routes + [f"fd00:{CLIENTS}:{client}::/64 via fd00:{MAGLEVS}::{router}" for client, router in ways]


def router_class(name: str, bird: type = Router) -> type:
    """Returns what a router is that runs `bird` or `frr`; ValueError for another."""
    classes = {"bird": bird, "frr": FrrRouter}
    allowed.one_of("router", name, classes)
    return classes[name]


def _on_link(kind: int, interface: str) -> list[str]:
    """Returns routes that find all of a kind behind an interface, on the same switch."""
    return [f"10.{kind}.0.0/16 dev {interface}", f"fd00:{kind}::/32 dev {interface}"]


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
