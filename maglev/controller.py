"""The controller: announces the VIPs by BGP while the forwarder is fit to serve them (Maglev §2.1-2.2).

It runs as ExaBGP's API process: what it prints are ExaBGP's commands, what it reads are ExaBGP's acknowledgements.
It never ends of its own accord, for ExaBGP would take that as a failure; it ends when ExaBGP does.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from . import announcements as bgp
from .engine.control import Client, ControlError
from .errors import MaglevError

POLL_S = 0.15
RETRY_S = 1.0
FORWARDER_SILENCE_S = 0.6  # one that takes longer to answer is frozen: its VIPs are to be gone within a second
ACKNOWLEDGEMENT_S = 5.0


class ExaBgp:
    """The speaker on the other end of our standard input and output."""

    def __init__(self, replies: TextIO, commands: TextIO) -> None:
        self._commands = commands
        self._replies: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(replies,), name="exabgp", daemon=True)
        self._reader.start()

    def _read(self, replies: TextIO) -> None:
        for line in replies:
            self._replies.put(line.strip())

    @property
    def alive(self) -> bool:
        """Says whether ExaBGP still holds the other end."""
        return self._reader.is_alive()

    def command(self, text: str) -> bool:
        """Sends a command; returns whether ExaBGP acknowledged it in time."""
        while not self._replies.empty():
            self._replies.get_nowait()  # a late answer to an earlier command
        print(text, file=self._commands, flush=True)
        return any(reply == "done" for reply in self._until_answered())

    def _until_answered(self) -> Iterator[str]:
        deadline = time.monotonic() + ACKNOWLEDGEMENT_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                reply = self._replies.get(timeout=left)
            except queue.Empty:
                return
            yield reply
            if reply in ("done", "error"):
                return


def run(locate: Callable[[], tuple[Path, str]]) -> None:
    """Polls a forwarder and keeps ExaBGP's announcements in step with it, until ExaBGP goes.

    `locate` returns the forwarder's control socket and name; while it cannot (MaglevError), nothing is announced and
    it is asked again.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a shared terminal is ExaBGP's to handle
    speaker = ExaBgp(sys.stdin, sys.stdout)
    while speaker.alive:
        try:
            control, name = locate()
        except MaglevError as error:
            print(f"maglev: {error}; trying again", file=sys.stderr, flush=True)
            time.sleep(RETRY_S)
        else:
            _follow(speaker, control, name)


def _follow(speaker: ExaBgp, control: Path, name: str) -> None:
    announced: frozenset[bgp.Route] = frozenset()
    client = Client(control, FORWARDER_SILENCE_S)
    while speaker.alive:
        wanted = bgp.wanted(_readiness(client))
        if wanted != announced:
            announced = _bring_into_step(speaker, name, announced, wanted)
        time.sleep(POLL_S)


def _bring_into_step(
    speaker: ExaBgp, name: str, announced: frozenset[bgp.Route], wanted: frozenset[bgp.Route]
) -> frozenset[bgp.Route]:
    """Sends what changes; returns what is announced afterwards: a command that failed is tried again next time."""
    for command in bgp.commands(announced, wanted):
        if not speaker.command(command):
            print(f"{name}: ExaBGP did not acknowledge '{command}'; trying again", file=sys.stderr, flush=True)
            return announced
    print(f"{name}: announces {len(wanted)} VIP address(es)", file=sys.stderr, flush=True)
    return wanted


def _readiness(client: Client) -> dict[str, Any] | None:
    try:
        return client.request("GET", "/readiness")
    except ControlError:
        return None
