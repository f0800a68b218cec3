"""A lab's hand on another server: `python -m lab.cluster.agent ID NODE…`, which ssh starts there as root.

It does what nodes do by themselves on the machine of the lab: sets up their interfaces, writes their files, starts and
ends their daemons, asks their kernels. It has a site of its own, with its ledger and its nursery, and takes all of that
away when its standard input ends, which it does however the lab or the connection ends.

Orders come over a control socket, `POST /NAME` with the arguments as a JSON document; ssh forwards it. As ssh does so
with the rights of who logged in, and daemons let only root in, a *relay* stands beside each named node's control
socket: what connects to it is passed on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from maglev.engine.control import ControlServer, Request
from maglev.errors import MaglevError

from .. import interfaces, namespace, tcp_md5
from ..bird import LinuxRouting
from ..errors import LabError
from ..nodes import CONTROL, ROOT, nursery_of
from ..nursery import Daemon
from ..site import Process, Site

OVER = "over"  # the directory of what ssh may connect to
SOCKET = "agent.sock"
READY = "ready"
END_TIMEOUT_S = 5.0
PIECE_BYTES = 1 << 16


class Agent:
    """What can be ordered: every method without an underscore, by its name."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._daemons: dict[int, subprocess.Popen[bytes] | Daemon] = {}

    def set_up(self, pid: int, names: list[str], sysctls: dict[str, str], lines: list[str]) -> None:
        """Makes a node's interfaces behave like wires, and has `ip` do some lines."""
        namespace.within(pid, partial(interfaces.set_up, names, sysctls, lines, self._site.environment))

    def set_sysctls(self, pid: int, values: dict[str, str]) -> None:
        """Sets kernel parameters of a node."""
        namespace.within(pid, partial(namespace.set_sysctls, values))

    def write(self, name: str, text: str) -> None:
        """Writes a file of the site in one step; only root may read it."""
        path = self._site.directory / name
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".part")
        tcp_md5.write_private(unfinished, text)
        unfinished.replace(path)

    def run(self, pid: int | None, command: list[str], text: str | None, timeout_s: float) -> dict[str, Any]:
        """Runs a command on a node, or on the server itself, and waits; returns its exit status and what it said."""
        done = subprocess.run(
            [*(["mnexec", "-a", str(pid)] if pid else []), *command],
            input=text, capture_output=True, text=True, timeout=timeout_s, env=self._site.environment, check=False,
        )  # fmt: skip
        return {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}

    def start(self, node: str, pid: int, name: str, command: list[str], environment: dict[str, str]) -> int:
        """Starts a daemon on a node, in a session of its own; returns its number."""
        with open(self._log(node, name), "ab") as log:
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            started = subprocess.Popen(["mnexec", "-da", str(pid), *command], env=self._told(environment), **pipes)
        return self._keep(node, name, started)

    def fork(self, node: str, pid: int, name: str, arguments: list[str]) -> int:
        """Starts a daemon on a node as a fork of this server's nursery; returns its number."""
        log = self._log(node, name)
        return self._keep(node, name, nursery_of(self._site).start(arguments, self._told({}), pid, log))

    def poll(self, pid: int) -> int | None:
        """Returns None while a daemon runs, else how it ended."""
        return self._daemons[pid].poll() if pid in self._daemons else 0

    def end(self, pids: list[int], number: int) -> None:
        """Sends a signal to daemons with their children, and waits for their end."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        for daemon in [self._daemons.pop(pid) for pid in pids if pid in self._daemons]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(END_TIMEOUT_S)

    def log(self, node: str, name: str) -> str:
        """Returns what a daemon has said."""
        return self._log(node, name).read_text(errors="replace")

    def files(self, node: str) -> dict[str, str]:
        """Returns a node's logs and configurations, by their names."""
        directory = self._site.directory / node
        return {path.name: path.read_text(errors="replace") for path in directory.glob("*.*") if path.is_file()}

    def routing(self, node: str, pid: int, what: str, neighbours: list[str], prefixes: list[str]) -> Any:
        """Returns what `LinuxRouting` says of a router: its `ecmp`, `counters`, `watched`, `sessions` or `buckets`."""
        answer = getattr(LinuxRouting(pid, self._site.directory / node, neighbours, prefixes), what)()
        return sorted(answer) if isinstance(answer, frozenset) else answer  # JSON knows no sets

    def _keep(self, node: str, name: str, daemon: subprocess.Popen[bytes] | Daemon) -> int:
        self._site.enter(Process.of(daemon.pid, f"{node}: {name}"))
        self._daemons[daemon.pid] = daemon
        return daemon.pid

    def _told(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {**self._site.environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}

    def _log(self, node: str, name: str) -> Path:
        directory = self._site.directory / node
        directory.mkdir(exist_ok=True)
        return directory / f"{name}.log"


def _taker(method: Callable[..., Any]) -> Callable[[Request], dict[str, Any]]:
    """Returns what carries out an order; MaglevError, which the control socket answers with, for what goes wrong."""

    def take(asked: Request) -> dict[str, Any]:
        try:
            return {"result": method(**json.loads(asked.body))}
        except (LabError, OSError, subprocess.SubprocessError) as error:
            raise MaglevError(str(error)) from None

    return take


class Relay(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Passes on what connects to it to another socket, both ways."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, target: Path) -> None:
        self.target = target
        super().__init__(str(path), _Passing)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Passing(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        """Connects, or hangs up where nobody listens: then whoever asked has no answer, as from a dead daemon."""
        with socket.socket(socket.AF_UNIX) as target:
            try:
                target.connect(str(self.server.target))
            except OSError:
                return
            back = threading.Thread(target=_pass, args=(target, self.request), daemon=True)
            back.start()
            _pass(self.request, target)
            back.join()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def open_to_ssh(path: Path) -> None:
    """Gives a file to who logged in by ssh: sudo says who that was."""
    os.chown(path, int(os.environ.get("SUDO_UID", 0)), -1)


def serve(site: Site, names: Sequence[str]) -> None:
    """Takes orders, and relays control sockets, until standard input ends."""
    over = site.directory / OVER
    over.mkdir(mode=0o700)
    open_to_ssh(over)
    agent = Agent(site)
    orders = {name: _taker(getattr(agent, name)) for name in dir(agent) if not name.startswith("_")}
    ControlServer(over / SOCKET, {}, {f"POST /{name}": take for name, take in orders.items()}).start()
    open_to_ssh(over / SOCKET)
    for name in names:
        Relay(over / f"{name}.sock", site.directory / name / CONTROL)
        open_to_ssh(over / f"{name}.sock")
    nursery_of(site)  # makes itself ready while nodes are wired
    print(READY, flush=True)
    sys.stdin.buffer.read()


def main(arguments: Sequence[str]) -> int:
    """Serves as the agent of the lab ID on this server; takes everything away at the end."""
    identity, *names = arguments
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a connection that ends shows on standard input
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    try:
        site = Site.create("", identity)
    except FileExistsError:
        print(f"the lab {identity} is here already: sudo maglab clean {identity}", file=sys.stderr)
        return 1
    try:
        serve(site, names)
    finally:
        site.clean()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
