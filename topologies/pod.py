"""A pod: edge routers, spines and leaves, with Maglevs and endpoints in racks of their own; ECMP at every tier.

           c1       c2                        10.0.i.2   fd00:0:i::2   clients                         MTU 1500
             \\      /
               isp1                           AS 64900   their provider, with a link to every edge
             /      \\
         edge1      edge2                     AS 65100   edge routers
          |    \\  /    |
          |    /  \\    |
         spine1     spine2                    AS 65200   spines: a link to every edge and every leaf    MTU 1600
          ||||  \\/  ||||
          ||||  /\\  ||||
    leaf1   leaf2   leaf3   leaf4             AS 65301 and on: a leaf on top of each rack
     / \\     / \\     / \\     / \\
   m1  m2  m3  m4  s1  s2  s3  s4             10.1.i.2   fd00:1:i::2   Maglevs
                                              10.2.i.2   fd00:2:i::2   endpoints

All links are routed; those between routers are 10.3.k.0/24 and fd00:3:k::/64, the outer router at .1. Every router
speaks eBGP to those it has a link to (RFC 7938), Maglevs speak to their leaf, and all spread over all shortest paths. A
client's packet goes c, isp, edge, spine, leaf, m, and in GRE leaf, spine, leaf, s; the answer goes s, leaf, spine,
edge, isp, c, by a spine and an edge that are chosen anew: often others than those the request came by.

All namespaces share one kernel, whose hash is the same in each. If every tier hashed alike, an edge that gets only
flows with a small hash would send all of them to its first spine, that one to its first leaf, and so on: paths starve.
`hashing` says what is done about it: `fields`, each tier hashes by other fields of the packet, all with the ports;
`seeds`, each router has a seed of its own (Linux 6.11 and later); `alike`, nothing, so that it shows. `router=frr` runs
FRR in BIRD's place, on all tiers.

    sudo mn --custom topologies/pod.py --topo pod,spines=4,hashing=alike
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from mininet.topo import Topo

from lab import allowed
from lab.fabric import HASHINGS, hash_sysctls
from lab.interfaces import INNER_MTU_BYTES, OUTER_MTU_BYTES
from lab.nodes import Client, Endpoint, Maglev
from topologies.rack import CLIENTS, ENDPOINTS, MAGLEVS, VIP_PREFIX, VIP_PREFIX6, cluster, router_class

PROVIDER, EDGE, SPINE, LEAF = range(4)  # tiers, from the internet inwards
NAMES = ("isp", "edge", "spine", "leaf")
ASES = (64900, 65100, 65200, 65300)  # of leaves, the one before the first
BETWEEN = 3  # the second byte of addresses between routers
MOST = 16  # of routers in a tier, of Maglevs or endpoints in a rack, of racks of a kind
MOST_LINKS = 250  # of a kind: one /24 each, numbered by its third byte


class Pod(Topo):  # type: ignore[misc]
    """Racks of Maglevs and racks of endpoints, behind leaves, spines and edges."""

    def build(
        self, edges: int = 2, spines: int = 2, maglev_racks: int = 2, endpoint_racks: int = 2,
        maglevs: int = 2, endpoints: int = 2, clients: int = 2, hashing: str = "fields", router: str = "bird",
    ) -> None:  # fmt: skip
        """Wires the pod; `maglevs` and `endpoints` are those of each rack. ValueError for what cannot be wired."""
        allowed.some(MOST, edges=edges, spines=spines, maglev_racks=maglev_racks, endpoint_racks=endpoint_racks)
        allowed.some(MOST, maglevs=maglevs, endpoints=endpoints, clients=clients)
        allowed.one_of("hashing", hashing, HASHINGS)
        racks, all_maglevs, all_endpoints = (
            maglev_racks + endpoint_racks,
            maglev_racks * maglevs,
            endpoint_racks * endpoints,
        )
        links = edges + edges * spines + spines * racks
        for count, what in ((links, "links between routers"), (all_maglevs, "Maglevs"), (all_endpoints, "endpoints")):
            if count > MOST_LINKS:
                raise ValueError(f"{count} {what} are not allowed; allowed: at most {MOST_LINKS}")
        self.cluster = cluster(all_maglevs, all_endpoints)
        self._router = router_class(router)
        self._hashing, self._links = hashing, 0
        self._add_routers((1, edges, spines, racks))
        for number in range(1, clients + 1):
            self._add("isp1", f"c{number}", Client, CLIENTS, number, OUTER_MTU_BYTES)
        self._fill(1, maglev_racks, maglevs, "m", Maglev, MAGLEVS)
        self._fill(maglev_racks + 1, endpoint_racks, endpoints, "s", Endpoint, ENDPOINTS)

    def _add_routers(self, counts: tuple[int, ...]) -> None:
        """Adds all tiers, each wired to the whole of the one above."""
        for tier, count in enumerate(counts):
            for number in range(1, count + 1):
                asn = ASES[tier] + (number if tier == LEAF else 0)
                hashing = hash_sysctls(self._hashing, tier, number)
                name = f"{NAMES[tier]}{number}"
                self.addHost(
                    name,
                    cls=self._router,
                    asn=asn,
                    hashing=hashing,
                    vip_prefix=VIP_PREFIX,
                    vip_prefix6=VIP_PREFIX6,
                )
                for above in range(1, counts[tier - 1] + 1 if tier else 1):
                    self._join(f"{NAMES[tier - 1]}{above}", name, OUTER_MTU_BYTES if tier == EDGE else INNER_MTU_BYTES)

    def _join(self, outer: str, inner: str, mtu: int) -> None:
        self._links += 1
        network, network6 = f"10.{BETWEEN}.{self._links}", f"fd00:{BETWEEN}:{self._links}:"
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": mtu} for end in (1, 2)]
        self.addLink(outer, inner, params1=ends[0], params2=ends[1])

    def _fill(self, first_leaf: int, racks: int, each: int, letter: str, cls: type, kind: int) -> None:
        """Puts so many machines into each of so many racks."""
        for place in range(racks * each):
            leaf, number = f"leaf{first_leaf + place // each}", place + 1
            self._add(leaf, f"{letter}{number}", cls, kind, number, INNER_MTU_BYTES, cluster=self.cluster)

    def _add(self, router: str, name: str, cls: type, kind: int, number: int, mtu: int, **options: object) -> None:
        """Adds a machine on a link of its own to a router."""
        network, network6 = f"10.{kind}.{number}", f"fd00:{kind}:{number}:"
        self.addHost(name, cls=cls, default_route=f"{network}.1", default_route6=f"{network6}:1", **options)
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": mtu} for end in (2, 1)]
        self.addLink(name, router, params1=ends[0], params2=ends[1])


topos = {"pod": Pod}
