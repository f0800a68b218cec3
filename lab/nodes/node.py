"""What all machines of a laboratory have in common: a namespace, daemons that live and die with it, and a directory."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from mininet.node import Node

from .. import interfaces, namespace, tcp_md5
from ..errors import LabError, errors_in
from ..nursery import Daemon, Nursery
from ..site import Process, Site
from ..waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # where daemons are
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
            raise type(error)(f"{self.name}: {error}") from None
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

    def last_error(self, daemon: str) -> str:
        """Returns the last error for which a daemon has left a traceback; "" if there is none."""
        found = errors_in((self.directory / f"{daemon}.log").read_text(errors="replace"))
        return found[-1] if found else ""

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


class Client(LabNode):
    """Someone out on the internet."""

    role = "client"


def _same(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return False
