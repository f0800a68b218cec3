"""Traffic of programs that others wrote: started on clients, stopped by SIGINT, read when they end."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import subprocess
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import LabError
from ..timeline import Timeline
from .handle import GRACE_S, Handle, R

if TYPE_CHECKING:
    from ..nodes import LabNode

STOP_TIMEOUT_S = 5.0  # for a program that was interrupted to say what it did

_numbers = itertools.count(1)  # of this process's programs: two of a name may run at once


class Program:
    """A program on a client; what it prints goes to NAME-NUMBER.out in the node's directory, its complaints to .log."""

    def __init__(self, client: LabNode, name: str, command: Sequence[str], longest_s: float) -> None:
        self.client, self.name = client, name
        self._out = client.directory / f"{name}-{next(_numbers)}.out"
        with open(self._out, "wb") as out, open(self._out.with_suffix(".log"), "wb") as log:
            pipes = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": log}
            self._process: subprocess.Popen[bytes] = client.popen([*within(longest_s), *command], **pipes)

    @property
    def is_over(self) -> bool:
        """Says whether it has ended."""
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        """Returns what it has printed so far."""
        return self._out.read_text(errors="replace")

    def last_words(self) -> str:
        """Returns the last line of what it printed or complained of."""
        said = [self.output, self._out.with_suffix(".log").read_text(errors="replace")]
        lines = [line for text in said for line in text.strip().splitlines()]
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """Interrupts it, as Ctrl-C does, so that it says what it did."""
        if not self.is_over:
            self._signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """Sends a signal to the program and what bounds its time: Mininet gives them a process group of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def within(seconds: float) -> list[str]:
    """Returns what interrupts a command that takes longer, and then kills it: wrk may connect for minutes."""
    return ["timeout", "--foreground", "--signal=INT", f"--kill-after={STOP_TIMEOUT_S:g}", str(math.ceil(seconds))]


class ProgramHandle(Handle[R]):
    """Programs, one on each client; `_read` makes a report of what they have printed."""

    def __init__(
        self,
        timeline: Timeline,
        what: str,
        where: str,
        most_s: float,
        commands: Mapping[LabNode, Sequence[str]],
        **detail: Any,
    ) -> None:
        self._began = time.monotonic()
        self._programs = [Program(client, what, command, most_s + GRACE_S) for client, command in commands.items()]
        self._took_s = 0.0
        super().__init__(timeline, what, where, most_s, **detail)

    @abstractmethod
    def _read(self, programs: Sequence[Program], seconds: float, finished: bool) -> R:
        """Returns the report on what programs have printed; ValueError if one that is over has printed no result."""

    def report(self) -> R:
        finished = all(program.is_over for program in self._programs)
        if not finished or not self._took_s:
            self._took_s = time.monotonic() - self._began
        return self._read(self._programs, self._took_s, finished)

    def _end(self) -> None:
        for program in self._programs:
            program.stop()

    def _kill(self) -> None:
        for program in self._programs:
            program.kill()


def failed(program: Program) -> LabError:
    """Returns what to raise for a program that has ended without a result."""
    return LabError(f"{program.name} on {program.client.name} failed: {program.last_words()}")
