"""As many machines as one wants: racks behind a core, each with a router of its own.

        c1     c2     c3  ...                     10.0.i.2    fd00:0:i::2   clients           MTU 1500
           \\    |    /
                r0                                AS 64512    the core
           /    |    \\                           10.30.i.1   fd00:3:i::1   core              MTU 1600
         r1     r2     r3  ...                    10.30.i.2   fd00:3:i::2   racks' routers    AS 64513 and on
        / | \\  / | \\  / | \\
      m1  m4   m2 m5   m3 m6  ...                 10.10.i.2   fd00:1:i::2   Maglevs           MTU 1600
      s1  s4   s2 s5   s3 s6  ...                 10.20.i.2   fd00:2:i::2   endpoints         MTU 1600

The racks take Maglevs and endpoints in turn: with R routers, r1 has m1, m(1+R), m(1+2R), ... Every link is routed, and
there are as many of them as nodes but one; a Maglev speaks BGP to its own router, and that to the core (eBGP, and BFD).
The core spreads flows over all racks that have Maglevs, and a rack's router over these, by another hash. So Maglevs get
equal shares where each rack has as many. A client's packet goes c, r0, r, m, and in GRE r, r0, r, s; the answer goes s,
r, r0, c.

Of each kind there may be 2,500: one /24 a link, whose third byte goes to 250. Then the second is one more: the 251st
Maglev is 10.11.1.2. `router=frr` has FRR in BIRD's place, in the core as well.

    sudo mn --custom topologies/scale.py --topo scale,maglevs=16,endpoints=64,routers=4
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from mininet.topo import Topo

from lab import allowed
from lab.fabric import hash_sysctls
from lab.interfaces import INNER_MTU_BYTES, OUTER_MTU_BYTES
from lab.nodes import MOST_PATHS, Client, Endpoint, Maglev
from topologies.rack import VIP_PREFIX, VIP_PREFIX6, router_class
from topologies.rack import cluster as cluster_of_rack

CLIENTS, MAGLEVS, ENDPOINTS, ROUTERS = range(4)
BLOCK, EACH = 10, 250  # second bytes that a kind has; links for each
MOST = BLOCK * EACH
CORE, CORE_AS = "r0", 64512  # the first for private use (RFC 6996); the racks' routers follow


class Scale(Topo):  # type: ignore[misc]
    """N Maglevs and K endpoints in R racks, and C clients."""

    def build(
        self, maglevs: int = 8, endpoints: int = 16, clients: int = 4, routers: int = 2, router: str = "bird"
    ) -> None:
        """Wires them; ValueError for more or fewer than there are addresses, or paths that a router can have."""
        allowed.some(MOST, maglevs=maglevs, endpoints=endpoints, clients=clients)
        allowed.some(MOST_PATHS, routers=routers)
        if maglevs > (most := routers * MOST_PATHS):
            allowed.refuse("maglevs", maglevs, f"{MOST_PATHS} a router, so up to {most} with routers={routers}")
        self.cluster = cluster(maglevs, endpoints)
        self._router = router_class(router)
        self._add_routers(routers)
        for number in range(1, clients + 1):
            self._behind(CORE, f"c{number}", Client, CLIENTS, number, OUTER_MTU_BYTES)
        for letter, cls, kind, count in (("s", Endpoint, ENDPOINTS, endpoints), ("m", Maglev, MAGLEVS, maglevs)):
            for number in range(1, count + 1):
                rack = f"r{(number - 1) % routers + 1}"
                self._behind(rack, f"{letter}{number}", cls, kind, number, INNER_MTU_BYTES, cluster=self.cluster)

    def _add_routers(self, count: int) -> None:
        """Adds the core, and the racks' routers behind it, which do not choose by the hash that the core has."""
        told = {"vip_prefix": VIP_PREFIX, "vip_prefix6": VIP_PREFIX6}
        self.addHost(CORE, cls=self._router, asn=CORE_AS, hashing=hash_sysctls("fields", 0, 0), **told)
        for number in range(1, count + 1):
            own = {"asn": CORE_AS + number, "hashing": hash_sysctls("fields", 1, number), **told}
            self._behind(CORE, f"r{number}", self._router, ROUTERS, number, INNER_MTU_BYTES, **own)

    def _behind(self, router: str, name: str, cls: type, kind: int, number: int, mtu: int, **options: object) -> None:
        """Adds a node on a link of its own to a router."""
        network, network6 = network_of(kind, number), f"fd00:{kind}:{number}:"
        self.addHost(name, cls=cls, default_route=f"{network}.1", default_route6=f"{network6}:1", **options)
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": mtu} for end in (2, 1)]
        self.addLink(name, router, params1=ends[0], params2=ends[1])


def network_of(kind: int, number: int) -> str:
    """Returns the first three bytes of the IPv4 addresses on a node's link."""
    block, place = divmod(number - 1, EACH)
    return f"10.{BLOCK * kind + block}.{place + 1}"


def cluster(maglevs: int, endpoints: int) -> dict[str, object]:
    """Returns the configuration: the rack's, whose machines have the addresses that they have here."""
    document = cluster_of_rack(0, 0)
    document["maglevs"] = [
        {"name": f"m{n}", "address": f"{network_of(MAGLEVS, n)}.2", "address6": f"fd00:{MAGLEVS}:{n}::2"}
        for n in range(1, maglevs + 1)
    ]
    members = [{"address": f"{network_of(ENDPOINTS, n)}.2", "weight": 1} for n in range(1, endpoints + 1)]
    document["pools"]["web"]["endpoints"] = members  # type: ignore[index]
    return document


topos = {"scale": Scale}
