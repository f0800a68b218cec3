"""The machines of a laboratory: Mininet hosts that bring their own daemons (Mininet's `Node`, one role a class).

A topology says who there is, how they are wired and which addresses they have. What a node runs it finds out
itself: a router speaks BGP to every Maglev that it has a link to, a Maglev to every router. So the same topology
works in a `Lab` and under plain `mn --custom`. Mininet's camelCase is overridden here and nowhere else.

Only the standard library, Mininet and YAML: `mn` runs this with the distribution's own Python. The daemons run with
the project's.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import yaml
from mininet.node import Node

from . import bird, interfaces, namespace, nginx, tcp_md5
from .bird import COUNTERS, VIP_PREFIXES, session_name
from .errors import LabError
from .interfaces import INNER_MTU_BYTES
from .nursery import SERVERS, Daemon, Nursery
from .site import Process, Site
from .waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # where daemons are
CONTROL = "control.sock"  # in the directory of whoever answers on one
CONFIG = "maglev.yaml"  # the configuration that all Maglevs and endpoints of a lab share
HOLD_TIME_S = 3  # BGP's shortest (RFC 4271 §4.2); a keepalive every second
# Between routers silence is noticed in 0.75 s (BFD, RFC 5880): were it BGP's 3 s, Maglevs whose checks go by a dead
# spine would take endpoints for dead that live.
BFD_INTERVAL_MS, BFD_MULTIPLIER = 150, 5
ROUTER_AS, MAGLEV_AS = 65000, 65001
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

HERE = "localhost"

_mn_site: Site | None = None


def site_of_mn() -> Site:
    """Returns the site of nodes that no `Lab` made: one for this process, cleaned up when it ends."""
    global _mn_site
    if _mn_site is None:
        _mn_site = Site.create("mn")
        atexit.register(_mn_site.clean)
    return _mn_site


def project_python() -> str:
    """Returns the Python that has the project's packages."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def nursery_of(site: Site) -> Nursery:
    """Returns a site's nursery, which begins to make itself ready at the first call."""
    if site.nursery is None:
        site.nursery = Nursery(site, project_python(), ROOT)
    nursery: Nursery = site.nursery
    return nursery


class LabNode(Node):  # type: ignore[misc]
    """A machine in a network namespace of its own, with daemons that live and die with it."""

    role = "node"
    bgp_password = ""  # of those that speak BGP
    server = HERE  # the machine that it is on, by the name that Mininet gives it

    @classmethod
    def lacking(cls) -> str:
        """Returns what this machine lacks to run such a node, "" if nothing: asked before anything is made."""
        return ""

    def __init__(self, name: str, inNamespace: bool = True, **params: Any) -> None:
        self.site: Site = params.get("site") or site_of_mn()
        self.directory = self.site.directory / name
        self.directory.mkdir(exist_ok=True)
        self.daemons: dict[str, subprocess.Popen[bytes] | Daemon] = {}
        self.is_dark = False  # powered off
        super().__init__(name, inNamespace, **params)

    @property
    def is_here(self) -> bool:
        """Says whether it is on this machine: its files are then, and its processes have their numbers here."""
        return self.server == HERE

    def _popen(self, cmd: Sequence[str], **params: Any) -> subprocess.Popen[bytes]:
        """Starts whatever Mininet starts for this node with the lab's id, and enters it in the ledger."""
        process = super()._popen(cmd, **{"env": self.site.environment, **params})
        self.site.enter(Process.of(process.pid, f"{self.name}: {self._name_of(cmd)}"))
        return process

    def _name_of(self, cmd: Sequence[str]) -> str:
        return Path(cmd[-1]).name

    def config(
        self,
        sysctls: Mapping[str, str] | None = None,
        default_route: str | None = None,
        default_route6: str | None = None,
        routes: Sequence[str] = (),
        **params: Any,
    ) -> Any:
        """Sets the node up as its role needs, all in one go, and starts its daemons.

        Links carry what Mininet's `config` would set; `routes` are more of them, in the words of `ip route add`.
        """
        gateways = [f"default via {gateway}" for gateway in (default_route, default_route6) if gateway]
        lines = [*self._link_lines(), *(f"route add {route}" for route in [*gateways, *routes])]
        names = [str(interface) for interface in self.intfList()]
        try:
            self._set_up(names, sysctls or {}, lines)
        except LabError as error:
            raise LabError(f"{self.name}: {error}") from None
        self.start_daemons()
        return {}

    def _set_up(self, names: Sequence[str], sysctls: Mapping[str, str], lines: Sequence[str]) -> None:
        set_up = partial(interfaces.set_up, names, sysctls, lines, self.site.environment)
        namespace.within(self.pid, set_up)

    def _link_lines(self) -> Iterator[str]:
        """Yields what `ip` is to do with the node's interfaces."""
        return (line for interface in self.intfList() for line in interfaces.lines_of(interface))

    def set_sysctls(self, values: Mapping[str, str]) -> None:
        """Sets kernel parameters of this namespace."""
        namespace.within(self.pid, partial(namespace.set_sysctls, values))

    @property
    def address(self) -> str:
        """Returns the IPv4 address of the node's first interface."""
        return self.address_of(self.defaultIntf())

    @property
    def addresses(self) -> dict[int, str]:
        """Returns the addresses of the node's first interface by IP version."""
        return self.addresses_of(self.defaultIntf())

    @staticmethod
    def address_of(interface: Any) -> str:
        """Returns an interface's IPv4 address, without its prefix length."""
        return str(ip_interface(interface.params["address"]).ip)

    @staticmethod
    def addresses_of(interface: Any) -> dict[int, str]:
        """Returns an interface's addresses by IP version, IPv4 first, without their prefix lengths."""
        return interfaces.addresses_of(interface)

    def neighbours(self, role: str) -> list[tuple[Any, Any]]:
        """Returns (own interface, the other's interface) of every node of a role that a link, or a switch, leads to."""
        ends = [(own, other) for own in self.intfList() if own.link for other in interfaces.ends_of(own)]
        return [(own, other) for own, other in ends if getattr(other.node, "role", "") == role]

    def run(
        self, *command: str, text: str | None = None, check: bool = True, timeout_s: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on this node, and waits for it; LabError with what it said if it fails."""
        done = subprocess.run(
            ["mnexec", "-a", str(self.pid), *command],
            input=text, capture_output=True, text=True, timeout=timeout_s, env=self.site.environment, check=False,
        )  # fmt: skip
        return self._checked(done, command) if check else done

    def _checked(
        self, done: subprocess.CompletedProcess[str], command: Sequence[str]
    ) -> subprocess.CompletedProcess[str]:
        if done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(command)}: {(done.stderr or done.stdout).strip()}")
        return done

    def write_file(self, name: str, text: str) -> Path:
        """Writes a file of this node, which only its owner may read; returns where it is."""
        tcp_md5.write_private(self.directory / name, text)
        return self.directory / name

    def start_daemons(self) -> None:
        """Starts what this role runs; a role without daemons has nothing to do."""

    def start(self, name: str, command: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
        """Starts a daemon on this node, in a session of its own; its output goes to NAME.log."""
        with open(self.directory / f"{name}.log", "ab") as log:
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            started: subprocess.Popen[bytes] = self.popen(
                list(command), env=self._daemon_environment | environment, **pipes
            )
        self.daemons[name] = started
        return started

    def start_fork(self, name: str, arguments: Sequence[str]) -> None:
        """Starts a daemon on this node as a fork of the lab's nursery; its output goes to NAME.log."""
        log = self.directory / f"{name}.log"
        daemon = nursery_of(self.site).start(arguments, self._daemon_environment, self.pid, log)
        self.site.enter(Process.of(daemon.pid, f"{self.name}: {name}"))
        self.daemons[name] = daemon

    def start_piped(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Starts a process on this node that is spoken to through pipes; its complaints go to NAME.log."""
        with open(self.directory / f"{name}.log", "ab") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            return self.popen(list(command), env=self._daemon_environment, **pipes)

    @property
    def _daemon_environment(self) -> dict[str, str]:
        return self.site.environment | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def stop_daemons(self, number: signal.Signals = signal.SIGKILL, names: Iterable[str] = ()) -> None:
        """Sends a signal to the daemons (all, or those named) with their children, and waits for their end."""
        chosen = {name: self.daemons.pop(name) for name in (list(names) or list(self.daemons))}
        self._end(chosen.values(), number)

    def _end(self, daemons: Collection[subprocess.Popen[bytes] | Daemon], number: signal.Signals) -> None:
        for daemon in daemons:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, number)
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(5)

    def _file(self, name: str) -> str:
        return str(self.directory / name)

    def last_words(self, daemon: str) -> str:
        """Returns the last line that a daemon has said; "" if it said nothing."""
        return (self.directory / f"{daemon}.log").read_text(errors="replace").strip().rpartition("\n")[2]

    def outlive_owner(self) -> None:
        """Has the node live on without its shell, which ends with this process."""
        process = subprocess.Popen(
            ["mnexec", "-da", str(self.pid), "sleep", "infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.site.environment,
        )  # fmt: skip
        self.site.enter(Process.of(process.pid, f"{self.name}: mininet:{self.name}"))  # in the place of that shell
        there = f"/proc/{self.pid}/ns/net"
        wait_until(lambda: "" if _same(there, f"/proc/{process.pid}/ns/net") else "it is not there", 5.0, "staying")

    def terminate(self) -> None:
        """Takes the node away: daemons, shell, and with the last process its namespace and links."""
        self.stop_daemons()
        if self.shell and self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGKILL)
        self.cleanup()


def _same(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return False


class Switch(LabNode):
    """A switch: the kernel's bridge in a namespace of its own, all of whose links are its ports."""

    role = "switch"
    BRIDGE = "bridge"

    def config(self, **params: Any) -> Any:
        addressless = {f"net.ipv6.conf.{which}.disable_ipv6": "1" for which in ("all", "default")}
        return super().config(sysctls=addressless, **params)

    def _link_lines(self) -> Iterator[str]:
        """Yields the bridge as well. It floods what is for many: to snoop, it would need one who asks (RFC 4541)."""
        yield f"link add {self.BRIDGE} type bridge forward_delay 0 mcast_snooping 0"
        yield from super()._link_lines()
        yield from (f"link set {port} master {self.BRIDGE}" for port in self.intfList())
        yield f"link set {self.BRIDGE} mtu {INNER_MTU_BYTES} up"


class Client(LabNode):
    """Someone out on the internet."""

    role = "client"


NFT_FAMILIES = {4: "ip", 6: "ip6"}  # nftables' names of IP versions


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
    def routing(self) -> bird.LinuxRouting:
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


class ConfiguredNode(LabNode):
    """A node that reads the configuration that all Maglevs and endpoints share."""

    def config(self, cluster: Mapping[str, Any] | None = None, **params: Any) -> Any:
        """Writes `cluster`, the topology's configuration document, unless the lab has written one already."""
        self.config_file = self.directory.parent / CONFIG
        if self.is_here and not self.config_file.exists():
            write_config(self.config_file, cluster or {})
        self.control = self.site.directory / self.name / CONTROL  # where it is asked
        return super().config(**params)

    def start_maglev(self, command: str, *options: str) -> None:
        """Starts a daemon of `python -m maglev` on this node, as a fork of the lab's nursery."""
        arguments = ["--config", str(self.config_file), "--control", self._file(CONTROL), *options]
        self.start_fork(command, [command, *arguments])


class Maglev(ConfiguredNode):
    """A load balancer: forwarder, and ExaBGP with the controller as its API process.

    With a `bgp_password` it signs what it says to routers, and hears only those that sign with the same (RFC 2385).
    """

    role = "maglev"

    def config(self, bgp_password: str = "", **params: Any) -> Any:
        self.bgp_password = tcp_md5.usable(bgp_password)
        return super().config(**params)

    def start_daemons(self) -> None:
        self.write_file("exabgp.conf", self.exabgp_config())
        self.start_maglev("forwarder", "--maglev", self.name)
        exabgp = str(Path(project_python()).with_name("exabgp"))
        environment = {
            "exabgp_daemon_user": "root",  # it starts the controller, which must reach the control socket
            "exabgp_api_ack": "true",
            "exabgp_api_cli": "false",
            "exabgp_log_destination": "stderr",
            "exabgp_tcp_attempts": "0",
            "exabgp_reactor_speed": "10",  # it looks every 100 ms, not 10, when nothing comes: a lab has many of it
        }
        self.start("exabgp", [exabgp, "server", str(self.directory / "exabgp.conf")], **environment)

    def exabgp_config(self) -> str:
        """Returns ExaBGP's configuration: the controller, and for each router at the other end of a link a session
        over each family."""
        command = [project_python(), "-m", "maglev", "controller", "--maglev", self.name]
        command += ["--config", str(self.config_file), "--control", self._file(CONTROL)]
        password = f"md5-password '{self.bgp_password}';\n    " if self.bgp_password else ""
        sessions = "".join(
            f"""neighbor {theirs} {{
    router-id {self.address};
    local-address {self.addresses_of(own)[version]};
    local-as {MAGLEV_AS};
    peer-as {other.node.asn};
    hold-time {HOLD_TIME_S};
    {password}outgoing-ttl 255;
    incoming-ttl 255;
    family {{ ipv{version} unicast; }}
    api {{ processes [ controller ]; }}
}}
"""
            for own, other in self.neighbours("router")
            for version, theirs in self.addresses_of(other).items()
        )
        return f"process controller {{\n    run {' '.join(command)};\n    encoder text;\n}}\n{sessions}"


class Endpoint(ConfiguredNode):
    """A service endpoint: takes packets out of GRE, and runs real servers on the VIP.

    `servers` is "python", or "nginx": then that serves HTTP, and asks Python's server for what it has no answer to.
    """

    role = "endpoint"
    DECAPSULATION = "maglev.engine.decapsulation"

    def config(self, servers: str = "python", **params: Any) -> Any:
        self.has_nginx = servers == "nginx"
        return super().config(**params)

    def start_daemons(self) -> None:
        is_students = f"{self.DECAPSULATION}=" in self.site.variables.get("MAGLEV_STUDENT", "")  # see maglev.swap
        way = ["--decapsulation", "tun"] if is_students else []  # a kernel's devices would leave them no packet
        self.start_maglev("endpoint", *way)
        behind = ["--http-port", str(nginx.BEHIND_PORT)] if self.has_nginx else []
        self.start_fork("servers", [SERVERS, "--name", self.name, *behind])
        if self.has_nginx:
            file = self.write_file("nginx.conf", nginx.configuration(self.name, self.directory))
            self.start("nginx", ["nginx", "-p", str(self.directory), "-c", str(file), "-e", "stderr"])


def write_config(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a configuration in one step: whoever reads it finds the old one or the new one."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
    unfinished.replace(path)
