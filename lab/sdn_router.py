"""A router that is an Open vSwitch, whose control plane is a Ryu application (`lab.sdn`).

Everything is this router's own: database, switch and controller run in its namespace, with sockets in its directory;
no service of the machine is touched. Each link's interface is a port of the switch, and has another beside it, inside,
which the kernel sees with the router's addresses: `r1-eth0` and `r1-eth0-ip`. So the kernel answers for the router, and
takes what the switch has no flow for; `lab.sdn.rules` says what goes where.

Only the standard library, Mininet and YAML, as all that nodes use.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import interfaces, namespace, tcp_md5
from .bird import COUNTERS
from .errors import LabError, Lacking
from .interfaces import OUTER_MTU_BYTES
from .nodes import MAGLEV_AS, NFT_FAMILIES, PATH, ROOT, ROUTER_AS, ROUTER_SYSCTLS, Router
from .sdn.routing import CONTROL, DOCUMENT, MANAGEMENT, SwitchRouting
from .waiting import wait_until

RYU_PYTHON = ROOT / ".venv-ryu" / "bin" / "python"
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
PROGRAMS = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl")
BRIDGE = MANAGEMENT.removesuffix(".mgmt")
CONTROLLER = "tcp:127.0.0.1:6653"  # in the router's own namespace
KERNEL_RULES = "maglab_kernel"  # a table of nftables
BGP_PORT = 179
KERNEL_DATAPATH = Path("/sys/module/openvswitch")
START_TIMEOUT_S = 20.0
TTL_SECURITY = "255"  # a neighbour's packets have crossed no router (RFC 5082)
SDN_SYSCTLS = {
    **ROUTER_SYSCTLS,
    "net.ipv4.ip_default_ttl": TTL_SECURITY,
    "net.ipv6.conf.default.hop_limit": TTL_SECURITY,
    "net.ipv4.conf.all.arp_ignore": "1",  # a port's interface has no address, and answers for none
}
NO_ADDRESS = "net.ipv6.conf.{}.disable_ipv6"


class SdnRouter(Router):
    """Open vSwitch and Ryu: learns VIPs by BGP, and spreads flows by a select group that hashes the 5-tuple.

    `datapath` is `netdev` (a process), `system` (the kernel's), or `auto`: the kernel's where it is there.
    """

    nft_family = "netdev"  # its kernel does not forward what the switch takes
    hashes_fragments_alike = False  # later ones show no ports
    sees_incoming = False  # its kernel: a switch that is a process takes frames before filters and queues

    @classmethod
    def lacking(cls) -> str:
        for program in PROGRAMS:
            if shutil.which(program, path=PATH) is None:
                return f"Open vSwitch's {program} is not installed: run make setup"
        if not SCHEMA.exists():
            return f"Open vSwitch's {SCHEMA} is not there: run make setup"
        here = RYU_PYTHON.exists()
        return "" if here else f"Ryu's environment {RYU_PYTHON.parent.parent.name} is not there: run make setup"

    @staticmethod
    def hook_of_leaving(interfaces: Sequence[str]) -> str:
        """Returns nftables' hook at which packets are seen that leave by one of some interfaces."""
        return f"egress devices = {{ {', '.join(interfaces)} }}"

    def config(
        self,
        vip_prefix: str = "192.0.2.0/24",
        vip_prefix6: str = "2001:db8::/64",
        datapath: str = "auto",
        bgp_password: str = "",
        **params: Any,
    ) -> Any:
        if lacks := self.lacking():
            raise Lacking(lacks)
        self.bgp_password = tcp_md5.usable(bgp_password)
        self.vip_prefixes = {4: vip_prefix, 6: vip_prefix6}
        self.datapath = datapath if datapath != "auto" else ("system" if has_kernel_datapath() else "netdev")
        self.sees_incoming = self.datapath == "system"
        self.management = self.directory / MANAGEMENT
        self._count_vip_packets()
        return super(Router, self).config(sysctls=SDN_SYSCTLS, **params)

    def _link_lines(self) -> Iterator[str]:
        """Yields the links without their addresses, which are inside."""
        for port in self.intfList():
            yield f"link set {port} mtu {_mtu(port)} up"

    def start_daemons(self) -> None:
        self._start_switch()
        self.start_controller()

    def start_controller(self) -> None:
        """Starts the Ryu application alone: the switch goes on as it is."""
        tcp_md5.write_private(self.directory / "controller.json", json.dumps(self.document(), indent=2))
        command = [str(RYU_PYTHON), "-W", "ignore", "-m", "lab.sdn", self._file(DOCUMENT)]
        self.start("controller", command)

    def document(self) -> dict[str, Any]:
        """Returns what the controller is told: ports, peers, and what it may let in."""
        ports = dict(enumerate(self.intfList(), 1))
        peers = [
            {"address": address, "port": port, "maglev": other.node.name}
            for port, other in self._maglev_ports()
            for address in self.addresses_of(other).values()
        ]
        return {
            "as": ROUTER_AS,
            "peer_as": MAGLEV_AS,
            "password": self.bgp_password,
            "router_id": self.address,
            "allowed": list(self.vip_prefixes.values()),
            "management": str(self.management),
            "control": self._file(CONTROL),
            "inside": {inside(port): number for number, port in ports.items()},
            "ports": [
                {"number": number, "inside": _inside_number(number), "mac": _mac(number), "mtu_bytes": _mtu(port)}
                for number, port in ports.items()
            ],
            "peers": peers,
        }

    def _maglev_ports(self) -> Iterator[tuple[int, Any]]:
        """Yields the number of each port that leads to a Maglev, and the Maglev's interface there."""
        numbers = {str(port): number for number, port in enumerate(self.intfList(), 1)}
        return ((numbers[str(own)], other) for own, other in self.neighbours("maglev"))

    # The switch

    def _start_switch(self) -> None:
        database, server = self._file("ovs.db"), f"unix:{self._file('ovsdb.sock')}"
        environment = {"OVS_RUNDIR": str(self.directory), "OVS_DBDIR": str(self.directory), "PATH": PATH}
        Path(database).unlink(missing_ok=True)
        self.run(_found("ovsdb-tool"), "create", database, str(SCHEMA))
        common = ["--no-chdir", "-vconsole:warn", "-vsyslog:off"]
        self.start("ovsdb", [_found("ovsdb-server"), database, f"--remote=p{server}",
                             f"--unixctl={self._file('ovsdb.ctl')}", *common], **environment)  # fmt: skip
        self._wait_for("ovsdb", Path(self._file("ovsdb.sock")))
        vsctl = [_found("ovs-vsctl"), f"--db={server}", f"--timeout={START_TIMEOUT_S:.0f}"]
        self.run(*vsctl, "--no-wait", "init")
        self.start("vswitchd", [_found("ovs-vswitchd"), server, f"--unixctl={self._file('vswitchd.ctl')}", *common],
                   **environment)  # fmt: skip
        self._wait_for("vswitchd", Path(self._file("vswitchd.ctl")))
        try:
            self.run(*vsctl, *self._bridge())
        except LabError as error:
            words = self._last_words("vswitchd")
            raise Lacking(f"{self.name}'s Open vSwitch does not run: {words} ({error})") from None
        self._wait_for("vswitchd", self.management)
        self._put_addresses_inside()

    def _bridge(self) -> Iterator[str]:
        """Yields what `ovs-vsctl` is to do: one bridge, all links its ports, and an interface inside for each."""
        yield from ("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, f"datapath_type={self.datapath}",
                    "fail_mode=secure", "protocols=OpenFlow15", "other_config:disable-in-band=true")  # fmt: skip
        for number, port in enumerate(self.intfList(), 1):
            yield from ("--", "add-port", BRIDGE, str(port), "--", "set", "interface", str(port))
            yield f"ofport_request={number}"
            yield from ("--", "add-port", BRIDGE, inside(port), "--", "set", "interface", inside(port))
            yield from ("type=internal", f"ofport_request={_inside_number(number)}", f'mac="{_mac(number)}"')
            yield f"mtu_request={_mtu(port)}"
        yield from ("--", "set-controller", BRIDGE, CONTROLLER)
        yield from ("--", "set", "controller", BRIDGE, "max_backoff=1000", "connection_mode=out-of-band")

    def _put_addresses_inside(self) -> None:
        """Gives the kernel's side of each link what the topology gave the link; a dead switch has left it there."""
        lines = [
            line
            for port in self.intfList()
            for line in (
                *(f"address replace {network} dev {inside(port)}" for network in interfaces.networks_of(port)),
                f"link set {inside(port)} mtu {_mtu(port)} up",
            )
        ]
        lines += [f"route replace {prefix} dev {inside(self.defaultIntf())}" for prefix in self.vip_prefixes.values()]
        names = [inside(port) for port in self.intfList()]
        hidden = {NO_ADDRESS.format(port): "1" for port in self.intfList()}
        sysctls = {f"net.ipv6.conf.{name}.hop_limit": TTL_SECURITY for name in names} | hidden
        namespace.within(self.pid, partial(interfaces.set_up, names, sysctls, lines, self.site.environment))

    def _wait_for(self, daemon: str, socket_file: Path) -> None:
        def missing() -> str:
            if self.daemons[daemon].poll() is not None:
                raise Lacking(f"{self.name}'s Open vSwitch does not run: {daemon} says: {self._last_words(daemon)}")
            return "" if _listens(socket_file) else f"{daemon} has not opened {socket_file.name}"

        wait_until(missing, START_TIMEOUT_S, f"starting {self.name}'s Open vSwitch")

    def _last_words(self, daemon: str) -> str:
        text = (self.directory / f"{daemon}.log").read_text(errors="replace").strip()
        return text.rpartition("\n")[2].rpartition("|")[2] or "nothing"

    def set_receiving(self, port: Any, receives: bool) -> None:
        """Has the switch take what comes in by a port, or drop all of it."""
        number = self.intfList().index(port) + 1
        what = "receive" if receives else "no-receive"
        self.run(_found("ovs-ofctl"), "-O", "OpenFlow15", "mod-port", f"unix:{self.management}", str(number), what)

    # What is counted, and answered

    def _count_vip_packets(self) -> None:
        """Counts what a `Router` counts, where packets leave and come: the kernel does not forward them here."""
        table = "\n".join(self._counting())
        self.run("nft", "-f", "-", text=f"table netdev {COUNTERS} {{\n{table}\n}}\n{self._rules_of_kernel()}")

    def _rules_of_kernel(self) -> str:
        """Returns rules for the kernel: it takes BGP from neighbours alone, and says that VIPs without a group cannot
        be reached. It has a route to these, or would say so of every packet whose hop limit is used up as well."""
        return f"""table inet {KERNEL_RULES} {{
chain input {{
type filter hook input priority 0;
tcp dport {BGP_PORT} ip ttl < {TTL_SECURITY} drop
tcp dport {BGP_PORT} ip6 hoplimit < {TTL_SECURITY} drop
}}
chain forward {{
type filter hook forward priority 0;
ip daddr {self.vip_prefixes[4]} reject with icmp type net-unreachable
ip6 daddr {self.vip_prefixes[6]} reject with icmpv6 type no-route
}}
}}
"""

    def _counting(self) -> Iterator[str]:
        for own, other in self.neighbours("maglev"):
            name, out, back = other.node.name, [], []
            yield from (f"counter {what}_{name} {{}}" for what in ("to", "flows", "return"))
            for version, address in self.addresses_of(other).items():
                family, prefix = NFT_FAMILIES[version], self.vip_prefixes[version]
                out += [
                    f"{family} daddr {prefix} counter name to_{name}",
                    f"{family} daddr {prefix} tcp flags & (syn | ack) == syn counter name flows_{name}",
                    f"{family} saddr {prefix} {family} daddr != {address} counter name return_{name}",
                ]
                back.append(f"{family} saddr {prefix} counter name return_{name}")
            for hook, rules in (("egress", out), ("ingress", back)):
                lines = "\n".join([f'type filter hook {hook} device "{own}" priority 0;', *rules])
                yield f"chain {hook}_{name} {{\n{lines}\n}}"

    @property
    def routing(self) -> SwitchRouting:
        """Returns whom to ask for routes, sessions and counters."""
        return SwitchRouting(self.pid, self.directory)

    def sessions_with(self, maglev: str) -> list[list[str]]:
        """Returns what the controller says of its sessions with a Maglev: of each the peer, the state, since when."""
        return self.routing.sessions_with(maglev)

    def tell_sessions(self, maglev: str, command: str) -> None:
        """Has the controller restart, disable or enable its sessions with a Maglev."""
        self.routing.tell_sessions(maglev, command)

    def evidence(self) -> str:
        """Returns all that the switch has, in its own words."""
        asked = ("dump-flows", "dump-groups", "dump-group-stats", "dump-ports")
        where = f"unix:{self.management}"
        return "".join(
            self.run(_found("ovs-ofctl"), "-O", "OpenFlow15", each, where, check=False).stdout for each in asked
        )


def has_kernel_datapath() -> bool:
    """Says whether this kernel has Open vSwitch's module, and loads it if need be."""
    modprobe = ["modprobe", "-q", "openvswitch"]
    return KERNEL_DATAPATH.is_dir() or (
        shutil.which("modprobe", path=PATH) is not None
        and subprocess.run(modprobe, env={**os.environ, "PATH": PATH}, capture_output=True, check=False).returncode == 0
        and KERNEL_DATAPATH.is_dir()
    )


def _listens(socket_file: Path) -> bool:
    """Says whether somebody takes connections there: the file is there a moment before that."""
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(socket_file)) == 0


def inside(port: Any) -> str:
    """Returns what the kernel's interface beside a port is called."""
    return f"{port}-ip"


def _inside_number(number: int) -> int:
    return 1000 + number


def _mac(number: int) -> str:
    """Returns the router's link address on a port: locally administered (IEEE 802), the same whenever it starts."""
    return f"02:00:00:01:{number >> 8:02x}:{number & 0xFF:02x}"


def _mtu(port: Any) -> int:
    return int(port.params.get("mtu", OUTER_MTU_BYTES))


def _found(program: str) -> str:
    return shutil.which(program, path=PATH) or program
