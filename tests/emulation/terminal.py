"""A terminal as a person has it: a program on a pseudo-terminal, its screen, and keys that are pressed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

import pyte

from lab.nodes import ROOT

TIMEOUT_S = 20.0
OF_ANOTHER_TERMINAL = ("COLUMNS", "LINES")  # its size, which readline leaves to the children of who uses it


class Terminal:
    """Runs a command on a terminal of so many columns and rows; a context manager that kills it at the end."""

    def __init__(self, command: Sequence[str], columns: int = 100, rows: int = 30, **environment: str) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        self.resize(columns, rows)
        self.settings = termios.tcgetattr(self._ours)
        self._theirs = theirs  # held open, so that its settings can be looked at when the program has ended
        self.raw = b""
        kept = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER_TERMINAL}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True,
            env=kept | {"TERM": "xterm-256color"} | environment, preexec_fn=lambda: self._be_foreground(),
        )  # fmt: skip

    @staticmethod
    def _be_foreground() -> None:
        """Makes the terminal the process's own, so that Ctrl-C reaches it, and undoes what a script hands down."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def resize(self, columns: int, rows: int) -> None:
        """Changes the terminal's size, as a person does with a window."""
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def lines(self) -> list[str]:
        """Returns what is on the screen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def row(self) -> int:
        """Returns the number of the line in which the cursor is."""
        return int(self._screen.cursor.y)

    @property
    def text(self) -> str:
        """Returns what is on the screen and what has scrolled off it."""
        above = ["".join(cell.data for _, cell in sorted(row.items())) for row in self._screen.history.top]
        return "\n".join([*above, *self.lines])

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._ours, keys.encode())

    def read(self, seconds: float = 0.1) -> None:
        """Takes in what comes within a time."""
        if select.select([self._ours], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                data = os.read(self._ours, 1 << 16)
                self.raw += data
                self._stream.feed(data)

    def wait_for(self, *words: str, timeout_s: float = TIMEOUT_S) -> None:
        """Waits until all words are on the screen; AssertionError, with the screen, if they do not come."""
        self.wait_until(lambda: all(word in "\n".join(self.lines) for word in words), f"{words}", timeout_s)

    def wait_until(self, is_so, what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Waits until something is so; AssertionError, with the screen, if it does not come true."""
        give_up = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < give_up, f"expected {what} on the screen, saw:\n" + "\n".join(self.lines)
            self.read()

    def wait_end(self, timeout_s: float = TIMEOUT_S) -> int:
        """Waits until the program ends; returns its exit status."""
        self.wait_until(lambda: self.process.poll() is not None, "the program's end", timeout_s)
        self.read(0.0)
        return self.process.returncode

    def command(self, line: str, *words: str, prompt: str = "maglab> ", timeout_s: float = TIMEOUT_S) -> str:
        """Types a line at a prompt, waits for the next prompt, and returns what came in between."""
        self.wait_until(lambda: self.lines[self.row] == prompt.rstrip(), "a prompt", timeout_s)
        before = len(self.raw)
        self.type(f"{line}\n")
        self.wait_until(
            lambda: self.raw[before:].decode(errors="replace").count(prompt) >= 1, f"an end of {line}", timeout_s
        )
        answer = self.raw[before:].decode(errors="replace")
        for word in words:
            assert word in answer, f"{line}: expected {word!r} in {answer!r}"
        return answer

    def hang_up(self) -> None:
        """Closes the terminal under the program, as a lost connection or a closed window does."""
        os.close(self._ours)
        self._ours = -1

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the program, which takes its lab away; kills it if it does not."""
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._theirs)
        if self._ours >= 0:
            os.close(self._ours)
