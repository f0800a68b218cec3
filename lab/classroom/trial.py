"""The process in which a solution is judged by one criterion: begun, listened to for as long as it may take, and ended.

With it goes whatever the student's code has started, wherever it has gone: all of it carries a mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..site import end_all
from .account import Account
from .criteria import Criterion
from .exercise import ROOT, Exercise
from .runner import BORROWS, RESULT_FD
from .side_by_side import Running

STARTUP_S = 10.0  # for the interpreter and its imports, before a criterion's own seconds begin
LAB_STARTUP_S = 60.0
LARGEST_RESULT_BYTES = 1 << 20
TIMED_OUT = "timed out"
NOT_BEGUN = "not begun"
MARK = "MAGLAB_TRIAL"  # in the environment of all that it starts
ALONE = {"OPENBLAS_NUM_THREADS": "1"}  # NumPy starts no threads: without root, a process with any gets no namespace


@dataclass(frozen=True)
class Trial:
    """A solution, or None for the reference, and the criterion by which it is judged."""

    exercise: Exercise
    criterion: Criterion
    solution: Path | None
    seed: int
    may_borrow: bool  # of the reference
    secret: str = field(default_factory=secrets.token_hex)  # that a verdict has to know
    mark: str = field(default_factory=secrets.token_hex)

    @property
    def startup_s(self) -> float:
        """Returns how long it may take until the criterion's own time begins, in seconds."""
        return LAB_STARTUP_S if self.criterion.lab is not None else STARTUP_S

    def run(self, output: Any, running: Running, account: Account | None) -> tuple[bytes, str]:
        """Runs the process; returns its result, and how it ended if it gave none in time.

        What it prints goes to the file `output`. A criterion that needs no lab is judged as another user, if one is
        given.
        """
        reading, writing = os.pipe()
        process = self._start(output, writing, account if self.criterion.lab is None else None)
        os.close(writing)
        end = partial(_ask_to_end, process, self.criterion.lab is not None)
        running.add(end)
        try:
            with os.fdopen(reading, "rb") as pipe:
                result = _read(pipe, b"", self.startup_s)
                if result is None:
                    return b"", NOT_BEGUN
                if result.startswith(b"\n"):  # all is ready; else it could not even begin
                    result = _read(pipe, result[1:], self.criterion.seconds)
            if result is None:
                return b"", TIMED_OUT
            return result, "" if result else _end_of(process)
        finally:
            running.remove(end)
            _end(process, gently=self.criterion.lab is not None)
            end_all(MARK, self.mark)

    def _start(self, output: Any, result_fd: int, account: Account | None) -> subprocess.Popen[bytes]:
        arguments = [str(self.exercise.directory), self.criterion.name, str(self.solution or ""), str(self.seed)]
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.classroom.runner", *arguments],
            stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=[result_fd], start_new_session=True,
            env={**os.environ, **self._environment(result_fd), **(account.environment if account else {})},
            **(account.options if account else {}),
        )  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as asked:
            asked.write(self.secret.encode())
        return process

    def _environment(self, result_fd: int) -> Mapping[str, str]:
        own = {RESULT_FD: str(result_fd), MARK: self.mark, "PYTHONPATH": str(ROOT)}
        borrows = {BORROWS: "yes" if self.may_borrow else ""}  # whatever the environment says so far
        return {**own, **borrows, **(ALONE if self.criterion.lab is None else {})}


def _read(pipe: Any, received: bytes, limit_s: float) -> bytes | None:
    """Returns `received` and what comes until the end of a line or of the pipe, None if that takes longer."""
    deadline = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while b"\n" not in received and len(received) < LARGEST_RESULT_BYTES:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            chunk = os.read(pipe.fileno(), 65536)
            if not chunk:
                break
            received += chunk
        return received


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """Returns how a process ended that gave no result."""
    try:
        status = process.wait(STARTUP_S)
    except subprocess.TimeoutExpired:
        return "it closed the grader's own files"
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended the program, with status {status}"


def _ask_to_end(process: subprocess.Popen[bytes], gently: bool) -> None:
    """Has a process end that somebody waits for; one with a lab takes that away first."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM if gently else signal.SIGKILL)


def _end(process: subprocess.Popen[bytes], gently: bool) -> None:
    """Ends the process and its children; one with a lab gets the time to take that away."""
    if gently and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STARTUP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
