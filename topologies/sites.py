"""Two or three sites on Earth with the same service, a name server that sends clients to one, a core between them.

        Zurich   New York   Tokyo   Sydney   Nairobi   Sao Paulo    where clients are: maglev/data/locations.csv
          c1        c2        c3      c4       c5         c6        10.0.i.2   fd00:0:i::2   clients       MTU 1500
            `--------`---------`---.---'--------'----------'
                            ns1 -- r0                               10.3.1.2   fd00:3:1::2   name server   MTU 1500
                     .--------------+--------------.                10.4.i.1   fd00:4:i::1   core          MTU 1600
                     r1             r2             r3               10.4.i.2   fd00:4:i::2   sites' routers
                  /  |  \\        /  |  \\        /  |  \\
                m1  m2  s1 s2   m3  m4  s3 s4   m5  m6  s5 s6       10.1.n.2   fd00:1:n::2   Maglevs       MTU 1600
                `-- zurich --'  `- new-york -'  `--- tokyo --'      10.2.n.2   fd00:2:n::2   endpoints     MTU 1600

    zurich     192.0.2.17   2001:db8::1:1   www, echo, datagrams, www6, …           out of 192.0.2.16/28
    new-york   192.0.2.33   2001:db8::2:1   new-york-www, new-york-echo, …          out of 192.0.2.32/28
    tokyo      192.0.2.49   2001:db8::3:1   tokyo-www, tokyo-echo, …                out of 192.0.2.48/28
    anycast    192.0.2.1    2001:db8::1     anycast-www, …, new-york-anycast-www, … in zurich and new-york

    www.lab.example        the VIPs of the nearest site that serves and has room
    anycast.lab.example    the one VIP that two sites announce
    ns1.lab.example        the name server

A site is a rack and a shard: its Maglevs announce its own VIPs to its own router, which tells the core, and that the
others (eBGP; each router has an AS of its own). So a VIP that all Maglevs of its site have withdrawn is unreachable
from everywhere, and the name server, which probes VIPs from outside as clients would, sees it. For anycast the core
spreads flows over both sites, as both are as near; when one withdraws, all that comes goes to the other, where other
endpoints know nothing of connections that were open.

One configuration describes all sites, since a lab pushes one and watches one. They still share nothing: a site's
Maglevs take from it what its shard says, check its own endpoints, and speak to no other site.

The clients of a place ask the name server themselves, with `dig` or through the C library (`curl http://www/`), and it
tells them apart by their addresses, or by what a query says of its client (EDNS client subnet).

    sudo mn --custom topologies/sites.py --topo sites,sites=3
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from mininet.topo import Topo

from lab import allowed
from lab.fabric import hash_sysctls
from lab.interfaces import INNER_MTU_BYTES, OUTER_MTU_BYTES
from lab.naming import NamedClient, NameServer
from lab.nodes import Endpoint, Maglev, Router

SITES = {"zurich": (47.38, 8.54), "new-york": (40.71, -74.01), "tokyo": (35.68, 139.69)}
ANYCAST_SITES = ("zurich", "new-york")
ANYCAST = ("192.0.2.1", "2001:db8::1")
VIP_PREFIX, VIP_PREFIX6 = "192.0.2.0/24", "2001:db8::/64"
SERVICES = (("www", "tcp", 80), ("echo", "tcp", 7), ("datagrams", "udp", 7))
ZONE, NAMESERVER = "lab.example", "10.3.1.2"
CORE_AS = 64512  # the first for private use (RFC 6996); the sites' routers follow
CLIENTS, MAGLEVS, ENDPOINTS, NAMESERVERS, CORE = 0, 1, 2, 3, 4  # the second byte of their addresses
MOST = {"maglevs": 80, "endpoints": 80, "clients": 6}  # of a site, whose links are numbered by a byte; and places
CHECK = {"type": "http", "port": 80, "path": "/healthz", "interval_s": 0.5, "timeout_s": 0.5, "rise": 2, "fall": 3}


class Sites(Topo):  # type: ignore[misc]
    """Sites of N Maglevs and K endpoints each, and clients in up to six places."""

    def build(
        self,
        sites: int = 2,
        maglevs: int = 2,
        endpoints: int = 2,
        clients: int = 6,
        capacity_pps: float = 1000,
        spill_from: float = 0.7,
        full_at: float = 0.95,
        ttl_s: int = 5,
    ) -> None:
        """Wires the sites. `capacity_pps` is what one may forward; ValueError for what cannot be.

        Loaded above `spill_from` of its capacity it is given ever fewer new clients, from `full_at` on none. A name
        holds for `ttl_s`.
        """
        allowed.whole("sites", sites, 2, len(SITES))
        for what, number in (("maglevs", maglevs), ("endpoints", endpoints), ("clients", clients)):
            allowed.whole(what, number, 1, MOST[what])
        allowed.whole("ttl_s", ttl_s, 0, 86400)
        allowed.amount("capacity_pps", capacity_pps, 1e9)
        allowed.amount("spill_from", spill_from, 10)
        allowed.amount("full_at", full_at, 10)
        if full_at < spill_from:
            allowed.refuse("full_at", full_at, f"a number from {spill_from:g} (spill_from) to 10")
        self._sites = list(SITES)[:sites]
        self.cluster = cluster(self._sites, maglevs, endpoints)
        load = {"spill_from": float(spill_from), "full_at": float(full_at)}
        self.names = names(self._sites, maglevs, float(capacity_pps), load, ttl_s)
        self._add_routers()
        for number in range(1, clients + 1):
            told = {"nameserver": NAMESERVER, "zone": ZONE}
            self._behind("r0", f"c{number}", NamedClient, CLIENTS, number, OUTER_MTU_BYTES, **told)
        self._behind("r0", "ns1", NameServer, NAMESERVERS, 1, OUTER_MTU_BYTES, names=self.names)
        for place in range(sites):
            for kind, letter, cls, count in ((ENDPOINTS, "s", Endpoint, endpoints), (MAGLEVS, "m", Maglev, maglevs)):
                for n in _numbers(place, count):
                    router = f"r{place + 1}"
                    self._behind(router, f"{letter}{n}", cls, kind, n, INNER_MTU_BYTES, cluster=self.cluster)

    def _add_routers(self) -> None:
        """Adds the core, and the sites' routers behind it, which do not choose by the same hash as the core has."""
        told = {"vip_prefix": VIP_PREFIX, "vip_prefix6": VIP_PREFIX6}
        self.addHost("r0", cls=Router, asn=CORE_AS, hashing=hash_sysctls("fields", 0, 0), **told)
        for site in range(1, len(self._sites) + 1):
            hashing = hash_sysctls("fields", 1, site)
            self._behind(
                "r0", f"r{site}", Router, CORE, site, INNER_MTU_BYTES, asn=CORE_AS + site, hashing=hashing, **told
            )

    def _behind(self, router: str, name: str, cls: type, kind: int, number: int, mtu: int, **options: object) -> None:
        """Adds a node on a link of its own to a router."""
        network, network6 = f"10.{kind}.{number}", f"fd00:{kind}:{number}:"
        self.addHost(name, cls=cls, default_route=f"{network}.1", default_route6=f"{network6}:1", **options)
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": mtu} for end in (2, 1)]
        self.addLink(name, router, params1=ends[0], params2=ends[1])


def _numbers(place: int, count: int) -> range:
    """Returns the numbers of a site's nodes of a kind, of which each site has so many."""
    return range(place * count + 1, (place + 1) * count + 1)


def vips_of(site: str) -> tuple[str, str]:
    """Returns a site's own VIP, in IPv4 and in IPv6."""
    number = list(SITES).index(site) + 1
    return f"192.0.2.{16 * number + 1}", f"2001:db8::{number}:1"


def cluster(sites: list[str], maglevs: int, endpoints: int) -> dict[str, object]:
    """Returns the configuration of all sites, of so many Maglevs and endpoints each: a shard and a pool a site."""
    return {
        "maglevs": [
            {"name": f"m{n}", "address": f"10.{MAGLEVS}.{n}.2", "address6": f"fd00:{MAGLEVS}:{n}::2", "shard": site}
            for place, site in enumerate(sites)
            for n in _numbers(place, maglevs)
        ],
        "pools": {
            site: {
                "endpoints": [
                    {"address": f"10.{ENDPOINTS}.{n}.2", "weight": 1} for n in _numbers(place, endpoints)
                ],
                "health_check": dict(CHECK),
            }
            for place, site in enumerate(sites)
        },
        "vips": [vip for site in sites for vip in _vips(site)],
        "forwarder": {"engine": "auto", "table_size": 65537},
    }  # fmt: skip


def _vips(site: str) -> list[dict[str, object]]:
    """Returns a site's VIPs; those of the first have plain names."""
    prefix = "" if site == next(iter(SITES)) else f"{site}-"
    own = [(prefix, vip, {}) for vip in [vips_of(site)]]
    shared = [(f"{prefix}anycast-", ANYCAST, {"anycast": True})] if site in ANYCAST_SITES else []
    return [
        {"name": f"{before}{name}{suffix}", "address": address, "protocol": protocol, "port": port}
        | {"pool": site, "shard": site, **kind}
        for before, addresses, kind in (*own, *shared)
        for address, suffix in zip(addresses, ("", "6"), strict=True)
        for name, protocol, port in SERVICES
    ]


def names(sites: list[str], maglevs: int, capacity_pps: float, load: dict[str, float], ttl_s: int) -> dict[str, object]:
    """Returns the name server's configuration."""
    check = {**CHECK, "rise": 1, "fall": 2}
    return {
        "zone": ZONE,
        "ttl_s": ttl_s,
        "hosts": {"ns1": [NAMESERVER, f"fd00:{NAMESERVERS}:1::2"]},
        "sites": {
            site: {
                "latitude": SITES[site][0],
                "longitude": SITES[site][1],
                "maglevs": [f"10.{MAGLEVS}.{n}.2" for n in _numbers(place, maglevs)],
                "capacity_pps": capacity_pps,
            }
            for place, site in enumerate(sites)
        },
        "names": {
            "www": {"vips": {site: list(vips_of(site)) for site in sites}, "health_check": check},
            "anycast": {"vips": {site: list(ANYCAST) for site in ANYCAST_SITES}, "health_check": dict(check)},
        },
        "load": load,
    }


topos = {"sites": Sites}
