"""A router that runs FRR instead of BIRD: zebra, bgpd and bfdd in its namespace, with their sockets in its directory.

Its operators know its console: `r1 vtysh --vty_socket /run/maglab/ID/r1` in the lab's console. All else is as with BIRD
(`lab.nodes.Router`): the same sessions, filters and equal paths, so whoever asks a router need not know which. No
service of the machine is used.

Only the standard library, Mininet and YAML, as all that nodes use.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from . import tcp_md5
from .bird import ANSWER_TIMEOUT_S, ESTABLISHED, LinuxRouting
from .errors import Lacking
from .nodes import BFD_INTERVAL_MS, BFD_MULTIPLIER, HOLD_TIME_S, MAGLEV_AS, MOST_PATHS, Router
from .waiting import wait_until

PROGRAMS = Path("/usr/lib/frr")
OWNER = "frr"  # whom the daemons become once they have what only root may have
START_TIMEOUT_S = 20.0
SOCKETS = {"zebra": ("zserv.api", "zebra.vty"), "bfdd": ("bfdd.vty",), "bgpd": ("bgpd.vty",)}  # in its directory
FAMILIES = {4: "ip", 6: "ipv6"}  # FRR's words for IP versions
# The kernel drops next-hop objects with their link, and says nothing: after a short cut zebra took them for installed.
ZEBRA_LINES = ("no zebra nexthop kernel enable",)
END = b"\0\0\0"  # of an answer, before a byte that says how it went (FRR's lib/vty.c)
CONFIGURATION = "bgpd.conf"  # in the router's directory
NO_ANSWER = "no answer"


class FrrRouting(LinuxRouting):
    """A router's answers, whose sessions FRR knows."""

    def sessions(self) -> dict[str, str]:
        peers = summary(self._directory).values()
        found = {}
        for name in self._neighbours:
            states = [peer["state"] for peer in peers if peer.get("desc") == name] or [NO_ANSWER]
            found[name] = next((state for state in states if state != ESTABLISHED), ESTABLISHED)
        return found

    def watched(self) -> frozenset[str]:
        said = answer(self._directory / "bfdd.vty", "enable", "show bfd peers json")
        peers = json.loads(said) if said.strip() else []
        return frozenset(peer["peer"] for peer in peers if peer["status"] == "up")


def summary(directory: Path) -> dict[str, dict[str, Any]]:
    """Returns what bgpd says of its sessions, by the neighbour's address; nothing if it does not answer."""
    said = answer(directory / "bgpd.vty", "show bgp summary json")
    families = json.loads(said) if said.strip() else {}
    return {address: peer for family in families.values() for address, peer in family.get("peers", {}).items()}


def answer(control: Path, *commands: str) -> str:
    """Returns what a daemon of FRR's answers to the last of some commands on its socket; "" if it does not answer.

    A command ends with a zero, an answer with three of them and a byte that says how it went.
    """
    said = b""
    with socket.socket(socket.AF_UNIX) as daemon, contextlib.suppress(OSError):
        daemon.settimeout(ANSWER_TIMEOUT_S)
        daemon.connect(str(control))
        for command in commands:
            daemon.sendall(command.encode() + b"\0")
            said = b""
            while said[-4:-1] != END:
                part = daemon.recv(1 << 16)
                if not part:
                    return ""
                said += part
        return said[:-4].decode(errors="replace")
    return ""


class FrrRouter(Router):
    """Linux with FRR: learns VIPs by BGP, and spreads flows over them by ECMP on the 5-tuple."""

    asked = FrrRouting

    @classmethod
    def lacking(cls) -> str:
        is_there = all((PROGRAMS / daemon).exists() for daemon in SOCKETS)
        return "" if is_there else "FRR is not installed, which router=frr asks for: run make setup, or leave that out"

    def start_daemons(self) -> None:
        if lacks := self.lacking():
            raise Lacking(lacks)
        shutil.chown(self.directory, OWNER, OWNER)
        for name, lines in (("zebra", ZEBRA_LINES), ("bfdd", self._bfd_lines()), ("bgpd", self._bgp_lines())):
            file = self.directory / f"{name}.conf"
            tcp_md5.write_private(file, "\n".join(["! Written by the lab.", f"hostname {self.name}", *lines, ""]))
            shutil.chown(file, OWNER, OWNER)
            own = ["-f", str(file), "-i", self._file(f"{name}.pid"), "-z", self._file("zserv.api")]
            if name == "bfdd":
                own += ["--bfdctl", self._file("bfdd.sock")]
            for left in SOCKETS[name]:  # of one that was killed
                (self.directory / left).unlink(missing_ok=True)
            log = ["--log", "stdout", "--log-level", "warnings", "-P", "0"]
            self.start(name, [str(PROGRAMS / name), *own, "--vty_socket", str(self.directory), *log])
            self._wait_for(name)

    def _wait_for(self, daemon: str) -> None:
        """Waits until a daemon listens: what finds no zebra tries again seconds later, and has no BFD until then."""

        def missing() -> str:
            if self.daemons[daemon].poll() is not None:
                words = (self.directory / f"{daemon}.log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise Lacking(f"{self.name}'s FRR does not run: {daemon} says: {words or 'nothing'}")
            return "" if all((self.directory / name).is_socket() for name in SOCKETS[daemon]) else "it does not listen"

        wait_until(missing, START_TIMEOUT_S, f"starting {self.name}'s {daemon}")

    def console_command(self) -> list[str]:
        """Returns how FRR's own console is started."""
        return ["vtysh", "--vty_socket", str(self.directory), "--config_dir", str(self.directory)]

    @staticmethod
    def _bfd_lines() -> Iterator[str]:
        yield from ("bfd", " profile fabric", f"  transmit-interval {BFD_INTERVAL_MS}")
        yield from (f"  receive-interval {BFD_INTERVAL_MS}", f"  detect-multiplier {BFD_MULTIPLIER}")

    def _bgp_lines(self) -> Iterator[str]:
        """Yields bgpd's configuration: the same sessions and filters that BIRD would have."""
        for version, prefix in self.vip_prefixes.items():
            network, word = ip_network(prefix), FAMILIES[version]
            yield f"{word} prefix-list vips{version} permit {network} le {network.max_prefixlen}"
            yield f"{word} prefix-list nothing{version} deny any"
        yield from ("route-map global-address permit 10", " set ipv6 next-hop prefer-global")  # as in BIRD
        yield f"router bgp {self.asn}"
        yield from (f" bgp router-id {self.address}", " no bgp ebgp-requires-policy", " no bgp default ipv4-unicast")
        yield from (f" timers bgp 1 {HOLD_TIME_S}", " bgp bestpath as-path multipath-relax")
        sessions = list(self._sessions())
        for name, address, asn, is_router in sessions:
            peer = f" neighbor {address}"
            yield from (f"{peer} remote-as {asn}", f"{peer} description {name}")
            yield from (f"{peer} ttl-security hops 1", f"{peer} timers connect 1")
            yield f"{peer} advertisement-interval 0"
            if self.bgp_password:
                yield f"{peer} password {self.bgp_password}"
            if is_router:
                yield f"{peer} bfd profile fabric"
        for version in FAMILIES:
            yield from (f" address-family ipv{version} unicast", f"  maximum-paths {MOST_PATHS}")
            if self.peers():
                yield "  redistribute connected"
            for _, address, _, is_router in (each for each in sessions if ip_address(each[1]).version == version):
                yield from self._family_lines(version, f"  neighbor {address}", is_router)
            yield " exit-address-family"

    @staticmethod
    def _family_lines(version: int, peer: str, is_router: bool) -> Iterator[str]:
        yield f"{peer} activate"
        if not is_router:  # a Maglev may announce VIPs, and is told nothing
            yield from (f"{peer} prefix-list vips{version} in", f"{peer} prefix-list nothing{version} out")
        if version == 6:
            yield f"{peer} route-map global-address in"

    def _sessions(self) -> Iterator[tuple[str, str, int, bool]]:
        """Yields the neighbour's name, address, and AS, and whether it is a router, of each session."""
        ends = [(other, MAGLEV_AS, False) for _, other in self.neighbours("maglev")]
        ends += [(other, other.node.asn, True) for _, other in self.peers()]
        for other, asn, is_router in ends:
            yield from ((other.node.name, address, asn, is_router) for address in self.addresses_of(other).values())

    # What it answers

    def vtysh(self, *commands: str, daemon: str = "bgpd") -> str:
        """Returns what a daemon answers to the last of some commands; "" if it does not answer."""
        return answer(self.directory / f"{daemon}.vty", *commands)

    def _addresses_of_maglev(self, maglev: str) -> list[str]:
        ends = [other for _, other in self.neighbours("maglev") if other.node.name == maglev]
        return [address for other in ends for address in self.addresses_of(other).values()]

    def sessions_with(self, maglev: str) -> list[list[str]]:
        """Returns address, state and count of establishments of each session with a Maglev."""
        peers = summary(self.directory)
        return [
            [address, peers[address]["state"], str(peers[address]["connectionsEstablished"])]
            for address in self._addresses_of_maglev(maglev)
            if address in peers
        ]

    def tell_sessions(self, maglev: str, command: str) -> None:
        """Has FRR restart, disable or enable its sessions with a Maglev."""
        for address in self._addresses_of_maglev(maglev):
            if command == "restart":
                self.vtysh("enable", f"clear bgp {address}")
            else:
                no = "no " if command == "enable" else ""
                self.vtysh("enable", "configure terminal", f"router bgp {self.asn}", f"{no}neighbor {address} shutdown")

    def evidence(self) -> str:
        bgp = [self.vtysh(f"show bgp {what}") for what in ("summary", "ipv4 unicast", "ipv6 unicast", "neighbors")]
        routes = [self.vtysh(f"show {word} route", daemon="zebra") for word in FAMILIES.values()]
        return "".join([*bgp, *routes])
