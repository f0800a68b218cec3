"""Two segments, as in a server room: Maglevs on one switch, endpoints on another, and a router with a leg in each.

               c1        c2                     10.0.i.2   fd00:0:i::2   clients, on links of their own     MTU 1500
                 \\      /
                    r1                          10.1.0.1   fd00:1::1     on the Maglevs' segment            MTU 1600
                  /    \\                        10.2.0.1   fd00:2::1     on the endpoints'                  MTU 1600
                t1      t2                      switches: the kernel's bridge
              / | \\    / | \\
            m1 m2 m3  s1 .. s5                  10.1.i.2   fd00:1:i::2   Maglevs,   all in 10.1.0.0/16 and fd00:1::/32
                                                10.2.i.2   fd00:2:i::2   endpoints, all in 10.2.0.0/16 and fd00:2::/32

Everybody on a segment finds everybody else there by ARP and neighbour discovery: the next hop of a VIP is a Maglev's
address, and which port of the switch that is behind the router learns by asking. Of a Maglev
that lost its power no link of the router's tells, only BGP's silence. The way of packets is the rack's: c, r1, m, r1,
s, and the answer s, r1, c. To have all on one segment, take the rack with two routers. `router=frr` runs FRR in BIRD's
place.

    sudo mn --custom topologies/lan.py --topo lan,maglevs=4
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from mininet.topo import Topo

from lab import allowed
from lab.interfaces import INNER_MTU_BYTES, OUTER_MTU_BYTES
from lab.nodes import MOST_PATHS, Client, Endpoint, Maglev, Switch
from topologies.rack import CLIENTS, ENDPOINTS, LIMIT, MAGLEVS, VIP_PREFIX, VIP_PREFIX6, cluster, router_class

SWITCH = {MAGLEVS: "t1", ENDPOINTS: "t2"}


class Lan(Topo):  # type: ignore[misc]
    """N Maglevs on one segment and K endpoints on another."""

    def build(self, maglevs: int = 3, endpoints: int = 5, clients: int = 2, router: str = "bird") -> None:
        """Wires both segments; ValueError for a number of nodes that is not from 1 to 250, or a router unheard of."""
        allowed.some(MOST_PATHS, maglevs=maglevs)
        allowed.some(LIMIT, endpoints=endpoints, clients=clients)
        self.cluster = cluster(maglevs, endpoints)
        self.addHost("r1", cls=router_class(router), vip_prefix=VIP_PREFIX, vip_prefix6=VIP_PREFIX6)
        for number in range(1, clients + 1):
            self._add_client(number)
        for kind, count, letter, cls in ((MAGLEVS, maglevs, "m", Maglev), (ENDPOINTS, endpoints, "s", Endpoint)):
            self.addHost(SWITCH[kind], cls=Switch)
            self._plug_in("r1", kind, f"10.{kind}.0.1", f"fd00:{kind}::1")
            for number in range(1, count + 1):
                gateways = {"default_route": f"10.{kind}.0.1", "default_route6": f"fd00:{kind}::1"}
                self.addHost(f"{letter}{number}", cls=cls, cluster=self.cluster, **gateways)
                link_address = f"02:00:0a:{kind:02x}:{number:02x}:02"
                self._plug_in(
                    f"{letter}{number}", kind, f"10.{kind}.{number}.2", f"fd00:{kind}:{number}::2", link_address
                )

    def _plug_in(self, name: str, kind: int, address: str, address6: str, link_address: str | None = None) -> None:
        """Puts a machine on the segment of a kind."""
        end = {"address": f"{address}/16", "address6": f"{address6}/32", "mtu": INNER_MTU_BYTES}
        self.addLink(
            name, SWITCH[kind], params1={**end, "link_address": link_address}, params2={"mtu": INNER_MTU_BYTES}
        )

    def _add_client(self, number: int) -> None:
        network, network6 = f"10.{CLIENTS}.{number}", f"fd00:{CLIENTS}:{number}:"
        self.addHost(f"c{number}", cls=Client, default_route=f"{network}.1", default_route6=f"{network6}:1")
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": OUTER_MTU_BYTES}
                for end in (2, 1)]  # fmt: skip
        self.addLink(f"c{number}", "r1", params1=ends[0], params2=ends[1])


topos = {"lan": Lan}
