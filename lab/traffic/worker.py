"""The lab's end of a process on a client that obeys commands and reports (`senders.obeying`)."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import LabError
from ..nodes import project_python

if TYPE_CHECKING:
    from ..nodes import LabNode

END_TIMEOUT_S = 5.0


class Worker:
    """A process on a node, `python -m MODULE ARGUMENTS`; its complaints go to NAME.log in the node's directory."""

    def __init__(self, node: LabNode, name: str, module: str, *arguments: str) -> None:
        self.node, self._name = node, name
        self._process: subprocess.Popen[bytes] = node.start_piped(name, [project_python(), "-m", module, *arguments])

    @property
    def pid(self) -> int:
        """Returns the process's number."""
        return self._process.pid

    def tell(self, command: str) -> None:
        """Sends a command, whose answer has to be read before the next."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def answer(self) -> Any:
        """Returns what it answers to the command."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._gone()
        return json.loads(line)

    def _gone(self) -> LabError:
        return LabError(f"the traffic process {self._name} on {self.node.name} has ended: see its {self._name}.log")

    def close(self) -> None:
        """Lets the process end, which it does when there is nothing more to obey."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(END_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def abandon(self) -> None:
        """Ends the process at once, for a lab that goes away."""
        self._process.kill()
        self._process.communicate()


class Workers:
    """Processes on several clients that are spoken to at once; anyone may ask, one at a time does."""

    def __init__(self, workers: Mapping[str, Worker]) -> None:
        self._workers = dict(workers)
        self._speaking = threading.Lock()  # a dashboard asks while the lab does

    def __bool__(self) -> bool:
        return bool(self._workers)

    @property
    def pids(self) -> list[int]:
        """Returns the numbers of the processes."""
        return [worker.pid for worker in self._workers.values()]

    def ask(self, command: str) -> dict[str, Any]:
        """Has all carry out one command at once; returns the answer of each client."""
        return self.ask_each(dict.fromkeys(self._workers, command))

    def ask_each(self, commands: Mapping[str, str]) -> dict[str, Any]:
        """Has each client carry out its command, at once; returns their answers."""
        with self._speaking:
            workers = self._workers
            if not workers:
                raise LabError("the traffic has been ended meanwhile")
            for client, command in commands.items():
                workers[client].tell(command)
            return {client: workers[client].answer() for client in commands}

    def close(self) -> None:
        """Lets all processes end."""
        with self._speaking:
            workers, self._workers = self._workers, {}
        for worker in workers.values():
            worker.close()

    def abandon(self) -> None:
        """Ends all processes at once."""
        workers, self._workers = self._workers, {}
        for worker in workers.values():
            worker.abandon()
