"""The lab's handle on its nursery: the process whose forks are the Maglevs' and endpoints' daemons (`maglev.nursery`).

Only the standard library, as all that nodes use.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import LabError
from .site import Process, Site
from .waiting import wait_until

SOCKET = "nursery.sock"
READY_TIMEOUT_S = 60.0  # compiling, where set-up has not done it, takes some seconds
ANSWER_TIMEOUT_S = 10.0
SERVERS = "lab.servers"  # what endpoints serve


class Daemon:
    """A process that is not our child, with what is used of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle: int | None = None
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Returns None while it runs, 0 when it has ended, however it did."""
        return None if self._handle is not None and not self._ended(0.0) else 0

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; subprocess.TimeoutExpired if that does not come in time."""
        if self._handle is not None and not self._ended(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return 0

    def _ended(self, timeout: float | None) -> bool:
        assert self._handle is not None
        return bool(select.select([self._handle], [], [], timeout)[0])

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None  # whoever is done away with together with it may still ask


class Nursery:
    """Starts the process; `start` waits until it is ready."""

    def __init__(self, site: Site, python: str, root: Path) -> None:
        self._path = site.directory / SOCKET
        self._log = site.directory / "nursery.log"
        environment = {**site.environment, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
        command = [python, "-m", "maglev", "nursery", "--socket", str(self._path), "--also", SERVERS]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        site.enter(Process.of(self._process.pid, "nursery"))

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], within: int, log: Path) -> Daemon:
        """Starts `python -m maglev ARGUMENTS` in the namespaces of the process `within`; its output goes to `log`.

        Where the first of ARGUMENTS is `lab.servers`, it starts `python -m ARGUMENTS`.
        """
        wait_until(self._what_is_missing, READY_TIMEOUT_S, "the nursery")
        document = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
        try:
            answer = self._order(document, within, log)
        except OSError as error:
            about = f" ({error.filename})" if error.filename else ""
            raise LabError(f"the nursery could not start {arguments[0]}: {error.strerror or error}{about}") from None
        if not answer:
            raise LabError(f"the nursery could not start {arguments[0]}: {self._last_words()}")
        return Daemon(int(answer))

    def _order(self, document: bytes, within: int, log: Path) -> bytes:
        """Returns the nursery's answer to an order: a process's number, or nothing."""
        with contextlib.ExitStack() as opened, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as order:
            files = [opened.enter_context(open(f"/proc/{within}/ns/{kind}", "rb")) for kind in ("net", "mnt")]
            files.append(opened.enter_context(open(log, "ab")))
            order.settimeout(ANSWER_TIMEOUT_S)
            order.connect(str(self._path))
            descriptors = array.array("i", [file.fileno() for file in files])
            order.sendmsg([document], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            return order.recv(64)

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace").strip().rpartition("\n")[2] or "it said nothing"

    def _what_is_missing(self) -> str:
        if self._process.poll() is not None:
            raise LabError(f"the nursery has ended: {self._last_words()}")
        return "" if self._path.exists() else "it is not ready"
