"""The router: Linux with BIRD, which learns VIPs by BGP and spreads flows by ECMP (Maglev §2.1)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Protocol

from .. import bird, tcp_md5
from ..bird import COUNTERS, VIP_PREFIXES, session_name
from .bgp import HOLD_TIME_S, MAGLEV_AS, ROUTER_AS
from .node import PATH, LabNode, project_python

# Between routers silence is noticed in 0.75 s (BFD, RFC 5880): were it BGP's 3 s, Maglevs whose checks go by a dead
# spine would take endpoints for dead that live.
BFD_INTERVAL_MS, BFD_MULTIPLIER = 150, 5
MOST_PATHS = 128  # of equal length, that a router spreads over: BIRD gives the kernel no IPv6 route of many more
BIRD_TABLE = 100  # the kernel's table that BIRD writes where another daemon makes next-hop groups of its routes
# ECMP by 5-tuple, as the packet says it (ip-sysctl.rst). Policy 1 would trust a hash that the sender's kernel, here the
# same one, has put on the packet: that one is random, and new after every timeout, so that flows would wander.
ECMP_FIELDS = str(0x01 + 0x02 + 0x04 + 0x10 + 0x20)  # addresses, protocol, ports; for IPv6 no flow label (0x08)
ROUTER_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.fib_multipath_hash_policy": "3",
    "net.ipv4.fib_multipath_hash_fields": ECMP_FIELDS,
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv6.fib_multipath_hash_policy": "3",
    "net.ipv6.fib_multipath_hash_fields": ECMP_FIELDS,
}
NFT_FAMILIES = {4: "ip", 6: "ip6"}  # nftables' names of IP versions


class Routing(Protocol):
    """What a router says of its routing, whatever it runs and wherever it is."""

    def ecmp(self) -> dict[str, tuple[str, ...]]:
        """Returns the next hops of every VIP of both families in its forwarding table, in the order of addresses."""

    def counters(self) -> dict[str, int]:
        """Returns its packet counters (`Router._count_vip_packets`)."""

    def buckets(self) -> dict[str, dict[str, int]]:
        """Returns what each Maglev's bucket has counted, by VIP; nothing where next hops count nothing."""

    def watched(self) -> frozenset[str]:
        """Returns the addresses of the routers that BFD watches, and hears (RFC 5880)."""

    def sessions(self) -> dict[str, str]:
        """Returns how the sessions with each neighbour are: the same of all its families, or what is amiss with one."""


class Router(LabNode):
    """Linux with BIRD: learns VIPs by BGP from its Maglevs, and spreads flows over them by ECMP on the 5-tuple.

    `vip_prefix` and, for IPv6, `vip_prefix6` are what its import filters let in, and nothing else. `ecmp` is how it
    spreads over next hops: `threshold`, as the kernel's multipath routes do, or `resilient`, by next-hop groups of so
    many `buckets`, which may move to another next hop when they have been idle for `idle_timer_s`. With a
    `bgp_password` it hears only neighbours that sign with the same (RFC 2385).

    To routers of another AS (`asn`) it speaks as well: it tells them what it is connected to and what it has learnt
    (`lab.fabric`). `hashing` has kernel parameters that make it hash unlike others.
    """

    role = "router"
    asked = bird.LinuxRouting  # whom to ask for routes, sessions and counters
    nft_family = "inet"  # in which its kernel sees packets on their way to Maglevs
    hashes_fragments_alike = True  # whether all fragments of a packet go the same way

    @classmethod
    def lacking(cls) -> str:
        return "" if shutil.which("bird", path=PATH) else "BIRD is not installed: run make setup"

    @staticmethod
    def hook_of_leaving(interfaces: Sequence[str]) -> str:
        """Returns nftables' hook at which packets are seen that leave by one of some interfaces, and others."""
        return "forward"

    def config(
        self,
        asn: int = ROUTER_AS,
        vip_prefix: str = VIP_PREFIXES[4],
        vip_prefix6: str = VIP_PREFIXES[6],
        hashing: Mapping[str, str] | None = None,
        ecmp: str = "threshold",
        buckets: int = 128,
        idle_timer_s: float = 0.0,
        bgp_password: str = "",
        **params: Any,
    ) -> Any:
        self.bgp_password = tcp_md5.usable(bgp_password)
        self.vip_prefixes = {4: vip_prefix, 6: vip_prefix6}
        self.is_resilient = ecmp == "resilient"
        self._groups = ["--table", str(BIRD_TABLE), "--buckets", str(buckets), "--idle-timer", f"{idle_timer_s:g}"]
        self._count_vip_packets()
        return super().config(sysctls={**ROUTER_SYSCTLS, **(hashing or {})}, **params)

    @property
    def asn(self) -> int:
        """Returns the router's AS."""
        return int(self.params.get("asn", ROUTER_AS))

    def peers(self) -> list[tuple[Any, Any]]:
        """Returns (own interface, the other's) of every router of another AS at the other end of a link."""
        return [(own, other) for own, other in self.neighbours("router") if other.node.asn != self.asn]

    def start_daemons(self) -> None:
        self.write_file("bird.conf", self.bird_config())
        self.start("bird", ["bird", "-f", "-c", self._file("bird.conf"), "-s", self._file("bird.ctl")])
        if self.is_resilient:
            self.start("nexthops", [project_python(), "-m", "lab.nexthops", *self._groups])

    def bird_config(self) -> str:
        """Returns BIRD's configuration: for each Maglev at the other end of a link a BGP session over each family."""
        families = "".join(self._bird_family(version, prefix) for version, prefix in self.vip_prefixes.items())
        sessions = "".join(
            f"protocol bgp {session_name(other.node.name, version)} from maglev{version} "
            f"{{ neighbor {address} as {MAGLEV_AS}; }}\n"
            for _, other in self.neighbours("maglev")
            for version, address in self.addresses_of(other).items()
        )
        sessions += "".join(
            f"protocol bgp {session_name(other.node.name, version)} from router{version} "
            f"{{ neighbor {address} as {other.node.asn}; }}\n"
            for _, other in self.peers()
            for version, address in self.addresses_of(other).items()
        )
        return f"""# Written by the lab. The router takes VIPs from its Maglevs, and spreads over all of them.
log stderr {{ warning, error, fatal, bug, auth }};
router id {self.address};
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; ipv6; }}
protocol bfd {{
    interface "*" {{ interval {BFD_INTERVAL_MS} ms; multiplier {BFD_MULTIPLIER}; idle tx interval 1 s; }};
}}
{families}{sessions}"""

    def _bird_family(self, version: int, prefix: str) -> str:
        """Returns what a family needs: VIPs into the kernel with all their next hops, and sessions to learn them by.

        Each family has sessions of its own, so that a Maglev's next hop is its address on the link, whichever link.
        """
        network = ip_network(prefix)
        table = f"    kernel table {BIRD_TABLE};\n" if self.is_resilient else ""
        password = f'    password "{self.bgp_password}";\n' if self.bgp_password else ""
        session = f"""    local as {self.asn};
    direct;
{password}    ttl security on;
    hold time {HOLD_TIME_S};
    keepalive time 1;
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;"""
        return f"""protocol kernel {{
{table}    ipv{version} {{ import none; export where source = RTS_BGP; }};
    merge paths on limit {MOST_PATHS};
}}
filter only_vips{version} {{
    if net ~ [ {network}{{{network.prefixlen},{network.max_prefixlen}}} ] then accept;
    reject;
}}
template bgp maglev{version} {{
{session}
    ipv{version} {{ import filter only_vips{version}; export none; }};
}}
template bgp router{version} {{
{session}
    bfd on;
    ipv{version} {{ import all; export where source ~ [ RTS_BGP, RTS_DEVICE ]; }};
}}
"""

    def _count_vip_packets(self) -> None:
        """Counts, per Maglev, packets to VIPs that leave for it, and how many of these begin a TCP flow.

        And packets from VIPs: there must be none, but for those addressed to the Maglev itself: they answer its health
        checks through the data path. Per router that it speaks to, the same, and the answers that are sent to it.
        """
        rules, counters = self._counts_of_peers()
        for own, other in self.neighbours("maglev"):
            name = other.node.name
            counters += [f"counter {what}_{name} {{}}" for what in ("to", "flows", "return")]
            link_address = other.params.get("link_address")  # tells Maglevs on a switch apart
            by = f"ether saddr {link_address} " if link_address else ""
            for version, address in self.addresses_of(other).items():
                family, prefix = NFT_FAMILIES[version], self.vip_prefixes[version]
                to = f"rt {family} nexthop {address}" if link_address else f'oifname "{own}"'
                rules += [
                    f"{to} {family} daddr {prefix} counter name to_{name}",
                    f"{to} {family} daddr {prefix} tcp flags & (syn | ack) == syn counter name flows_{name}",
                    f"{to} {family} saddr {prefix} {family} daddr != {address} counter name return_{name}",
                    f'iifname "{own}" {by}{family} saddr {prefix} counter name return_{name}',
                ]
        chain = "\n".join(["type filter hook forward priority 0;", *rules])
        lines = "\n".join(counters)
        self.run("nft", "-f", "-", text=f"table inet {COUNTERS} {{\n{lines}\nchain forward {{\n{chain}\n}}\n}}\n")

    def _counts_of_peers(self) -> tuple[list[str], list[str]]:
        """Returns rules and counters for what goes to other routers."""
        rules, counters = [], []
        for own, other in self.peers():
            name = other.node.name
            counters += [f"counter {what}_{name} {{}}" for what in ("to", "flows", "answers")]
            for version in self.addresses_of(other):
                family, prefix = NFT_FAMILIES[version], self.vip_prefixes[version]
                to = f'oifname "{own}" {family}'
                rules += [
                    f"{to} daddr {prefix} counter name to_{name}",
                    f"{to} daddr {prefix} tcp flags & (syn | ack) == syn counter name flows_{name}",
                    f"{to} saddr {prefix} counter name answers_{name}",
                ]
        return rules, counters

    def birdc(self, *command: str) -> str:
        """Returns what BIRD's console answers."""
        return self.run("birdc", "-s", self._file("bird.ctl"), *command).stdout

    @property
    def routing(self) -> Routing:
        """Returns whom to ask for routes, sessions and counters."""
        ends = (*self.neighbours("maglev"), *self.peers())
        return self.asked(self.pid, self.directory, [end.node.name for _, end in ends], self.vip_prefixes.values())

    def sessions_with(self, maglev: str) -> list[list[str]]:
        """Returns what BIRD says of its sessions with a Maglev, a line each: name, state, since when, and so on."""
        names = {session_name(maglev, version) for version in (4, 6)}
        lines = (line.split() for line in self.birdc("show", "protocols").splitlines())
        return [words for words in lines if words[:1] and words[0] in names]

    def tell_sessions(self, maglev: str, command: str) -> None:
        """Has BIRD restart, disable or enable its sessions with a Maglev, one over each family."""
        for _, other in self.neighbours("maglev"):
            if other.node.name == maglev:
                for version in self.addresses_of(other):
                    self.birdc(command, session_name(maglev, version))

    def console_command(self) -> list[str]:
        """Returns how BIRD's own console is started."""
        return ["birdc", "-s", self._file("bird.ctl")]

    def evidence(self) -> str:
        """Returns all that BIRD knows, in its own words."""
        return self.birdc("show", "route", "all") + self.birdc("show", "protocols", "all")
