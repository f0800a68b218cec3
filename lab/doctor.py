"""`maglab doctor`: what this machine has, and what that changes for a lab."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import tcp_md5
from .faults.impaired import NETEM_TRIAL
from .finding import Finding
from .namespace import READ_ONLY
from .nodes import project_python
from .sdn_router import RYU_PYTHON

NAMESPACE = ["unshare", "--net"]
PROGRAMS = {
    "mnexec": "mininet",
    "bird": "bird2",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "nft": "nftables",
    "tcpdump": "tcpdump",
    "ovs-vsctl": "openvswitch-switch",
    "curl": "curl",
    "ping": "iputils-ping",
}


def examine() -> Iterator[Finding]:
    """Yields what was found on this machine; everything is tried, nothing is left behind."""
    is_root = os.geteuid() == 0
    yield Finding("root", is_root, True, "may make namespaces" if is_root else "run it with sudo")
    version = platform.python_version()
    yield Finding(f"Python {version}", sys.version_info >= (3, 11), True, "3.11 or later is needed")
    for program, package in PROGRAMS.items():
        found = shutil.which(program)
        yield Finding(program, found is not None, True, found or f"install Debian's {package}: make setup")
    daemon = subprocess.run(
        [project_python(), "-c", "import maglev.forwarder, exabgp"], capture_output=True, check=False
    )
    yield Finding(
        "project's Python", daemon.returncode == 0, True, project_python() if daemon.returncode == 0 else "make setup"
    )
    has_ryu = RYU_PYTHON.exists()
    yield Finding("Ryu", has_ryu, False, str(RYU_PYTHON) if has_ryu else "no topology sdn: make setup")
    signs = tcp_md5.is_there()
    follows = "BGP sessions can have a password" if signs else "BGP sessions cannot have a password"
    yield Finding("TCP MD5 signatures", signs, False, follows)
    if is_root:
        yield from _kernel()


class Feature(NamedTuple):
    """A kernel feature, and the shell command that succeeds where it is there."""

    what: str
    trial: str
    needed: bool
    there: str
    absent: str


PAIR = "ip link add probe0 type veth peer name probe1"
NFT = "nft add table inet probe && nft add chain inet probe c '{ type filter hook output priority 0; }'"
NO_TUN = "endpoints need kernel GRE; a container needs --device /dev/net/tun"
TUN = "ip tuntap add dev probe mode tun"
GRE = (
    "ip link add probe type gre remote 127.0.0.2 && ip link add probe6 type ip6gre remote ::2"  # both, or neither helps
)
IPV6 = "ip link set lo up && ip -6 address add 2001:db8::1/128 dev lo"
ECMP = "sysctl -qw net.ipv4.fib_multipath_hash_policy=3 net.ipv6.fib_multipath_hash_policy=3"
PARAMETERS = "test -w /proc/sys/net/ipv4/ip_forward"
KERNEL_DATAPATH_TRIAL = "test -d /sys/module/openvswitch || modprobe -q -n openvswitch"
DECAPSULATION = {"kernel GRE", "TUN"}  # endpoints need one of them
FEATURES = (
    Feature(
        "network namespaces", "mnexec -n true", True, "nodes are namespaces", "this kernel, or container, forbids them"
    ),
    Feature("kernel parameters", PARAMETERS, True, "can be set", READ_ONLY),
    Feature("veth", PAIR, True, "links are veth pairs", "links cannot be made"),
    Feature("IPv6", IPV6, True, "nodes have addresses of both families", "nodes cannot have IPv6 addresses"),
    Feature("ECMP on the 5-tuple", ECMP, True, "flows spread", "no ECMP"),
    Feature("nftables", NFT, True, "packets are counted, power is cut", "no packet counts, no power cuts"),
    Feature("TUN", TUN, False, "endpoints can decapsulate in a process", NO_TUN),
    Feature("kernel GRE", GRE, False, "endpoints decapsulate in the kernel", "endpoints need TUN"),
    Feature(
        "netem",
        NETEM_TRIAL,
        False,
        "the kernel makes links bad",
        "a process on the link makes it bad",
    ),
    Feature(
        "Open vSwitch's module",
        KERNEL_DATAPATH_TRIAL,
        False,
        "in the topology sdn the kernel forwards",
        "in the topology sdn a process forwards",
    ),
)


def _kernel() -> Iterator[Finding]:
    """Tries kernel features, each in a network namespace of its own that goes with the trial."""
    for feature in FEATURES:
        tried = subprocess.run([*NAMESPACE, "sh", "-c", feature.trial], capture_output=True, check=False)
        found = tried.returncode == 0
        yield Finding(feature.what, found, feature.needed, feature.there if found else feature.absent)


def examine_cluster(names: str, ssh_config: Path | None) -> Iterator[Finding]:
    """Yields what was found on the servers of a cluster; WrongUse for what is no server's name."""
    from .cluster import servers, trial

    yield from trial.examine(servers.parse(names, ssh_config))


def is_fit(findings: list[Finding]) -> bool:
    """Says whether a lab can run, with or without what is only good to have."""
    there = {finding.what for finding in findings if finding.found}
    return all(finding.found for finding in findings if finding.needed) and not DECAPSULATION.isdisjoint(there)
