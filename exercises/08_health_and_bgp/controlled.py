"""A controller between an ExaBGP and a forwarder of the check's own: processes, pipes and a control socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lab.classroom import Case
from maglev.engine.control import ControlServer
from maglev.errors import MaglevError

DEADLINE_S = 8.0  # for whatever has to happen, on a machine that is busy


class Forwarder:
    """A process that answers GET /readiness with what a file says, and counts in another how often it was asked."""

    def __init__(self, directory: Path) -> None:
        self.socket, self._says, self._asked = directory / "control.sock", directory / "says", directory / "asked"
        self._configuration, self._sought = directory / "maglev.yaml", directory / "sought"
        self._pid = 0

    def configure(self) -> None:
        """Has it found by those who look for it."""
        self._configuration.touch()

    def locate(self) -> tuple[Path, str]:
        """Returns its control socket and name; MaglevError while there is no configuration."""
        _one_more(self._sought)
        if not self._configuration.exists():
            raise MaglevError("there is no configuration yet")
        return self.socket, "m1"

    def says(self, document: Mapping[str, Any]) -> None:
        """Has it answer otherwise from now on."""
        part = self._says.with_suffix(".part")
        part.write_text(json.dumps(document))
        part.replace(self._says)

    def start(self) -> None:
        """Starts it; returns when it answers."""
        self._pid = _forked(self._serve)
        _wait(self.socket.exists)

    def _serve(self) -> None:
        server = ControlServer(self.socket, {"GET /readiness": self._answer})
        server.serve_forever(poll_interval=0.1)

    def _answer(self) -> dict[str, Any]:
        _one_more(self._asked)
        document: dict[str, Any] = json.loads(self._says.read_text())
        return document

    @property
    def asked(self) -> int:
        """Returns how often it was asked so far."""
        return _count(self._asked)

    @property
    def sought(self) -> int:
        """Returns how often it was looked for so far."""
        return _count(self._sought)

    def freeze(self) -> None:
        """Stops the process: its socket still takes connections."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        """Ends it; its socket stays behind, and nobody listens there."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0


class ExaBgp:
    """The other end of a controller's pipes: takes commands, keeps the routes, acknowledges as ExaBGP does."""

    def __init__(self, student: Any, case: Case, locate: Callable[[], tuple[Path, str]]) -> None:
        self._case = case
        self.routes: set[str] = set()
        self.commands: list[str] = []
        self.refuses = 0  # so many commands are answered by "error"
        self._answers, self._commands = os.pipe(), os.pipe()
        self._gap = os.pipe()
        self._pid = _forked(lambda: self._become(student, locate))
        for unused in (self._answers[0], self._commands[1], self._gap[1]):
            os.close(unused)
        self._to_controller = os.fdopen(self._answers[1], "w")
        threading.Thread(target=self._listen, daemon=True).start()

    def _become(self, student: Any, locate: Callable[[], tuple[Path, str]]) -> None:
        """Turns a fork into the controller."""
        os.dup2(self._answers[0], 0)
        os.dup2(self._commands[1], 1)
        os.set_inheritable(self._gap[1], False)
        for unused in (*self._answers, *self._commands, self._gap[0]):
            os.close(unused)
        sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
        try:
            student.run(locate)
        except NotImplementedError as gap:
            os.write(self._gap[1], str(gap).encode())

    def _listen(self) -> None:
        with os.fdopen(self._commands[0]) as lines:
            for line in lines:
                acknowledgement = self._obey(line.strip())
                with contextlib.suppress(OSError):
                    print(acknowledgement, file=self._to_controller, flush=True)

    def _obey(self, command: str) -> str:
        self.commands.append(command)
        words = command.split()
        if self.refuses > 0:
            self.refuses -= 1
            return "error"
        if len(words) != 5 or words[1] != "route" or words[3:] != ["next-hop", "self"]:
            return "error"
        if words[0] == "announce":
            self.routes.add(words[2])
        elif words[0] == "withdraw":
            self.routes.discard(words[2])
        else:
            return "error"
        return "done"

    def expect(self, routes: set[str], why: str) -> float:
        """Waits until exactly these routes are announced; returns how long that took, in seconds."""
        began = time.monotonic()
        while self.routes != routes:
            self.expect_alive()
            if time.monotonic() - began > DEADLINE_S:
                shown = ", ".join(sorted(self.routes)) or "none"
                expected = ", ".join(sorted(routes)) or "none"
                self._case.step(f"its latest commands: {self.commands[-3:]}")
                self._case.wrong(f"expected the routes {expected}, {why}; {DEADLINE_S:g} s later announced: {shown}")
            time.sleep(0.005)
        return time.monotonic() - began

    def expect_alive(self) -> None:
        """Wrong, or NotImplementedError, if the controller has ended."""
        if not self.is_running:
            gap = os.read(self._gap[0], 4096).decode()
            if gap:
                raise NotImplementedError(gap)
            self._case.wrong("expected the controller to run as long as ExaBGP does, but it has ended")

    @property
    def is_running(self) -> bool:
        """Says whether the controller still runs."""
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
        return self._pid != 0

    def leave(self) -> None:
        """Closes the pipe that the controller reads from, as an ExaBGP that ends."""
        self._to_controller.close()

    def kill(self) -> None:
        """Ends the controller."""
        if self.is_running:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


@contextmanager
def controlled(
    student: Any, case: Case, document: Mapping[str, Any], configured: bool = True
) -> Iterator[tuple[ExaBgp, Forwarder]]:
    """Yields ExaBGP's end and the forwarder, which says `document`; the student's controller runs between them."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as undo:
        forwarder = Forwarder(Path(name))
        forwarder.says(document)
        if configured:
            forwarder.configure()
        undo.callback(forwarder.kill)
        forwarder.start()
        speaker = ExaBgp(student, case, forwarder.locate)
        undo.callback(speaker.kill)
        yield speaker, forwarder


def _one_more(file: Path) -> None:
    """Counts, for other processes to see."""
    with file.open("ab") as counted:
        counted.write(b"+")


def _count(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _forked(become: Callable[[], None]) -> int:
    """Returns the number of a child that does something, and then ends."""
    pid = os.fork()
    if pid == 0:
        _and_end(become)
    return pid


def _and_end(become: Callable[[], None]) -> NoReturn:
    try:
        become()
    except BaseException:  # a student's code may raise anything
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _wait(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not holds() and time.monotonic() < until:
        time.sleep(0.005)
