"""Nodes of a lab on several servers: each role's class, with Mininet's way to its server (`RemoteMixin`).

A node on this machine does everything as ever. One on another server has its shell there, by ssh, and has the agent do
the rest. Its `directory` is there, and so are the numbers of its processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mininet.examples.cluster import RemoteMixin

from ..errors import CannotStart, WrongUse
from ..nodes import Endpoint, LabNode, Maglev, Router, Routing, Switch
from ..site import ID_VARIABLE
from .away import Away, AwayDaemon, AwayRouting
from .servers import OPTIONS, Server

ABLE = (Router, Maglev, Endpoint, Switch)  # to be on another server
RUN_TIMEOUT_S = 60.0
SHELL_TIMEOUT_S, SHELL_POLL_S = 30.0, 0.1
SENTINEL = b"\x7f"  # with which a node's shell prompts, and by which Mininet knows that it waits


class Placed(RemoteMixin):  # type: ignore[misc]
    """What makes a `LabNode` one that Mininet's cluster edition can link to others, wherever they are."""

    def __init__(self, name: str, where: Server, away: Away | None = None, **params: Any) -> None:
        self._where, self.away = where, away
        self.sshbase = [*RemoteMixin.sshbase, *where.options]
        super().__init__(name, server=where.name, serverIP=where.address, user=where.user, **params)

    def _popen(self, cmd: Sequence[str] | str, sudo: bool = True, tt: bool = True, **params: Any) -> Any:
        """Starts a process on the node's server; if it is a tunnel's ssh, with the options that any ssh has there.

        What runs here as root is started as on any node: in a process group of its own, which the cluster edition
        makes, `mnexec -d` would fork, and the number that we know would end at once.
        """
        words = cmd.split() if isinstance(cmd, str) else list(cmd)
        if words[0] == "ssh":
            words[1:1] = self._tunnel_options
        if sudo and not self.isRemote:
            return super(RemoteMixin, self)._popen(words, **params)
        return super()._popen(self._named(words), sudo=sudo, tt=tt, **params)

    @property
    def _tunnel_options(self) -> Sequence[str]:
        return self._where.options

    def _named(self, words: list[str]) -> list[str]:
        """Returns a command that carries the lab's id, as all that runs here does without."""
        return words


class OnOther(Placed):
    """What a `LabNode` does otherwise on another server."""

    away: Away

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__(name, **params)
        self.directory = self.away.directory / name

    def startShell(self, *arguments: Any, **named: Any) -> None:
        """Starts the node's shell; CannotStart if it ends at once, for which Mininet would wait for ever."""
        started = threading.Event()
        threading.Thread(target=self._watch_shell, args=(started,), daemon=True).start()
        try:
            super().startShell(*arguments, **named)
        except ValueError:  # what was to be its number is none
            raise CannotStart(
                f"{self.name} has no shell on {self.server}: does mnexec work there, and may so many come in by ssh?"
            ) from None
        finally:
            started.set()

    def _watch_shell(self, started: threading.Event) -> None:
        """Says in the place of a shell that has ended, or is silent, that it has carried out what it was told."""
        give_up = time.monotonic() + SHELL_TIMEOUT_S
        while not started.wait(SHELL_POLL_S):
            if self.shell and (self.shell.poll() is not None or time.monotonic() > give_up):
                os.write(self.slave, SENTINEL)

    @property
    def _tunnel_options(self) -> Sequence[str]:
        return OPTIONS  # the file with this machine's options is not there

    def _named(self, words: list[str]) -> list[str]:
        return ["env", f"{ID_VARIABLE}={self.away.identity}", *words]

    def _name_of(self, cmd: Sequence[str]) -> str:
        return f"ssh to {self.server}"

    def _set_up(self, names: Sequence[str], sysctls: Mapping[str, str], lines: Sequence[str]) -> None:
        self.away.do("set_up", pid=self.pid, names=list(names), sysctls=dict(sysctls), lines=list(lines))

    def set_sysctls(self, values: Mapping[str, str]) -> None:
        self.away.do("set_sysctls", pid=self.pid, values=dict(values))

    def write_file(self, name: str, text: str) -> Path:
        self.away.do("write", name=f"{self.name}/{name}", text=text)
        return Path(self.directory / name)

    def run(
        self, *command: str, text: str | None = None, check: bool = True, timeout_s: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        told = {"pid": self.pid, "command": list(command), "text": text, "timeout_s": timeout_s or RUN_TIMEOUT_S}
        done = subprocess.CompletedProcess(list(command), **self.away.do("run", **told))
        return self._checked(done, command) if check else done

    def rcmd(self, *cmd: Any, **opts: Any) -> str:
        """Returns what a command in the server's own network says; by the agent, since each ssh takes half a second."""
        words = cmd[0].split() if isinstance(cmd[0], str) else list(cmd[0])
        said = self.away.do("run", pid=None, command=words, text=None, timeout_s=RUN_TIMEOUT_S)
        return str(said["stdout"] + said["stderr"])

    def start(self, name: str, command: Sequence[str], **environment: str) -> AwayDaemon:
        return self._started("start", name, command=list(command), environment=environment)

    def start_fork(self, name: str, arguments: Sequence[str]) -> None:
        self._started("fork", name, arguments=list(arguments))

    def _started(self, order: str, name: str, **told: Any) -> AwayDaemon:
        started = AwayDaemon(self.away, self.away.do(order, node=self.name, pid=self.pid, name=name, **told))
        self.daemons[name] = started
        return started

    def start_piped(self, name: str, command: Sequence[str]) -> Any:
        raise WrongUse(f"{self.name} is on {self.server}, and {name} runs on nodes of this machine only")

    def _end(self, daemons: Collection[Any], number: signal.Signals) -> None:
        if pids := [daemon.pid for daemon in daemons]:
            self.away.do("end", pids=pids, number=int(number))

    def last_words(self, daemon: str) -> str:
        return str(self.away.do("log", node=self.name, name=daemon)).strip().rpartition("\n")[2]

    def files(self) -> dict[str, str]:
        """Returns the node's logs and configurations, by their names."""
        return dict(self.away.do("files", node=self.name))

    def terminate(self) -> None:
        """Takes away what is on this machine; the agent takes away all the rest."""
        self.daemons.clear()
        super().terminate()


class RouterOnOther(OnOther):
    """The same for routers."""

    @property
    def routing(self) -> Routing:
        """Returns whom to ask for routes, sessions and counters."""
        ends = (*self.neighbours("maglev"), *self.peers())
        names = [end.node.name for _, end in ends]
        return AwayRouting(self.away, self.name, self.pid, names, list(self.vip_prefixes.values()))

    def console_command(self) -> list[str]:
        raise WrongUse(f"{self.name} is on {self.server}, and consoles open on routers of this machine only")


@cache
def placed(cls: type[LabNode], is_here: bool) -> type[Any]:
    """Returns a node's class for a network over several servers; WrongUse for one that cannot be on another."""
    if is_here:
        return type(f"Placed{cls.__name__}", (Placed, cls), {})
    if cls not in ABLE:
        able = ", ".join(each.__name__ for each in ABLE)
        raise WrongUse(f"a {cls.__name__} runs on this machine only; on another server there may be: {able}")
    return type(f"{cls.__name__}OnOther", (RouterOnOther if cls is Router else OnOther, cls), {})
