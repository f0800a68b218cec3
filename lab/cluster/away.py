"""The lab's end of an agent: one ssh that starts it, and forwards its socket and those of the daemons there."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from maglev.engine.control import ControlError, request

from ..errors import CannotStart, LabError
from ..nodes import CONTROL, ROOT
from ..site import RUN_DIRECTORY, Process, Site
from .agent import OVER, READY, SOCKET
from .servers import Server

START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0
ORDER_TIMEOUT_S = 60.0  # the nursery may have to compile first
AGENT = [str(ROOT / ".venv" / "bin" / "python"), "-m", "lab.cluster.agent"]


class Away:
    """A server that is not this machine, for as long as a lab has nodes there."""

    def __init__(self, site: Site, number: int, server: Server, nodes: Sequence[str]) -> None:
        """Starts the agent for the nodes that will be there, and waits for it; CannotStart if it does not start."""
        self.server, self.identity = server, f"{site.id}-{number}"
        self.directory = RUN_DIRECTORY / self.identity  # there
        owner = pwd.getpwnam(server.user)
        own = site.directory / f"server-{number}"
        self._socket, self._log = own / SOCKET, own / "ssh.log"
        forwarded = {self._socket: SOCKET, **{site.directory / name / CONTROL: f"{name}.sock" for name in nodes}}
        for path in forwarded:  # ssh, which runs as that user, makes them
            path.parent.mkdir(exist_ok=True)
            os.chown(path.parent, owner.pw_uid, owner.pw_gid)
        forwards = [
            word for here, there in forwarded.items() for word in ("-L", f"{here}:{self.directory / OVER / there}")
        ]
        there = ["sudo", "-n", "env", f"PYTHONPATH={ROOT}", *AGENT, self.identity, *nodes]
        command = [*server.ssh("-o", "StreamLocalBindUnlink=yes", *forwards), shlex.join(there)]
        with open(self._log, "ab") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            self._ssh = subprocess.Popen(command, env=site.environment, start_new_session=True, **pipes)
        site.enter(Process.of(self._ssh.pid, f"agent on {server.name}"))
        self._wait_ready()

    def _wait_ready(self) -> None:
        assert self._ssh.stdout is not None
        ready = select.select([self._ssh.stdout], [], [], START_TIMEOUT_S)[0] and self._ssh.stdout.readline()
        if ready != f"{READY}\n".encode():
            said = self._log.read_text(errors="replace").strip().rpartition("\n")[2]
            self.close()
            raise CannotStart(f"the lab's agent does not start on {self.server.name}: {said or 'it says nothing'}")

    def do(self, order: str, /, **arguments: Any) -> Any:
        """Has the agent carry out an order (`agent.Agent`), and returns what comes of it; LabError if it fails."""
        try:
            body = json.dumps(arguments).encode()
            return request(self._socket, "POST", f"/{order}", ORDER_TIMEOUT_S, body)["result"]
        except ControlError as error:
            lost = "the connection has ended: " if self._ssh.poll() is not None else ""
            raise LabError(f"{self.server.name}: {lost}{error}") from None

    def close(self) -> None:
        """Lets the agent take everything away there, and go; a connection that is dead is given up."""
        assert self._ssh.stdin is not None
        assert self._ssh.stdout is not None
        with contextlib.suppress(OSError):
            self._ssh.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._ssh.wait(END_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._ssh.pid, signal.SIGKILL)
        self._ssh.wait()
        self._ssh.stdout.close()


class AwayDaemon:
    """A daemon on another server, with what is used of `subprocess.Popen`."""

    POLL_S = 0.02

    def __init__(self, away: Away, pid: int) -> None:
        self._away, self.pid = away, pid

    def poll(self) -> int | None:
        """Returns None while it runs, else how it ended."""
        ended: int | None = self._away.do("poll", pid=self.pid)
        return ended

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; subprocess.TimeoutExpired if that does not come in time."""
        give_up = None if timeout is None else time.monotonic() + timeout
        while (ended := self.poll()) is None:
            if give_up is not None and time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(self.POLL_S)
        return ended


class AwayRouting:
    """What a router on another server says of its routing: as `bird.LinuxRouting`, which is asked there."""

    def __init__(self, away: Away, node: str, pid: int, neighbours: Sequence[str], prefixes: Sequence[str]) -> None:
        self._away = away
        self._asked = {"node": node, "pid": pid, "neighbours": list(neighbours), "prefixes": list(prefixes)}

    def ecmp(self) -> dict[str, tuple[str, ...]]:
        """Returns the next hops of every VIP of both families in the kernel, in the order of addresses."""
        return {vip: tuple(hops) for vip, hops in self._answer("ecmp").items()}

    def counters(self) -> dict[str, int]:
        """Returns the packet counters of the kernel."""
        return dict(self._answer("counters"))

    def watched(self) -> frozenset[str]:
        """Returns the addresses of the routers that BFD watches, and hears."""
        return frozenset(self._answer("watched"))

    def sessions(self) -> dict[str, str]:
        """Returns how the sessions with each neighbour are."""
        return dict(self._answer("sessions"))

    def buckets(self) -> dict[str, dict[str, int]]:
        """Returns what each Maglev's bucket has counted, by VIP."""
        return dict(self._answer("buckets"))

    def _answer(self, what: str) -> Any:
        return self._away.do("routing", what=what, **self._asked)
