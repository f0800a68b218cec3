"""What all processes on clients share: they obey a line on standard input with a line of JSON on standard output.

A sender takes all that it needs as one JSON object on its command line, and these commands:

    begin        begins to send, and answers at once
    report       what has been counted so far; `finished` says whether it is over
    stop         ends it, and answers with the last report

It ends when its standard input does, so that none outlives the lab that started it.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Protocol


class Sender(Protocol):
    """Traffic of one kind. `send` returns when all is sent and answered or given up, or soon after `ended` is set."""

    def send(self, ended: threading.Event) -> None: ...
    def report(self) -> dict[str, Any]: ...


class Sending:
    """A sender at work in a thread of its own, and the commands that it takes."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._error = ""

    def _send(self) -> None:
        try:
            self._sender.send(self._ended)
        except Exception as error:  # whatever it is, whoever asks for the report must learn of it
            self._error = f"{type(error).__name__}: {error}"
            traceback.print_exc()

    def obey(self, command: str) -> dict[str, Any]:
        """Carries out a command, and returns the report."""
        if command == "begin":
            self._thread.start()
        elif command == "stop":
            self._ended.set()
            self._thread.join()
        return {**self._sender.report(), "finished": not self._thread.is_alive(), "error": self._error}


def answer(obey: Callable[[str], Any]) -> None:
    """Obeys commands until standard input ends."""
    for line in sys.stdin:
        print(json.dumps(obey(line.strip()), separators=(",", ":")), flush=True)


def main(make: Callable[..., Sender]) -> None:
    """Runs a sender, made with what the command line says."""
    allow_many_files()
    sys.setswitchinterval(0.0005)  # a question is answered soon, whatever is being sent
    answer(Sending(make(**json.loads(sys.argv[1]))).obey)


def allow_many_files() -> None:
    """Lets this process have as many sockets as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
