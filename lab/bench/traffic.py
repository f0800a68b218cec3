"""The generator as a bench sees it: what it sends, how fast, and what has come back. The work is done by traffic.c."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import LabError
from . import needs
from .programs import compiled
from .wiring import GENERATOR_CORE, Wire

NEEDS = needs.BPF
QUIET_S = 0.05  # nothing came back for this long: nothing is under way any more
SETTLE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Traffic:
    """What is sent: frames of one length, of so many flows to so many VIPs."""

    length: int = 60  # bytes of the Ethernet frame, without its checksum: the shortest there is
    flows: int = 65536
    vips: int = 1
    udp: bool = False
    syn_every: int = 0  # of so many TCP packets one opens a connection; 0: none does

    def options(self) -> list[str]:
        """Returns the generator's options."""
        numbers = {"length": self.length, "flows": self.flows, "vips": self.vips, "syn-every": self.syn_every}
        return [f"--{name}={number}" for name, number in numbers.items()] + (["--udp"] if self.udp else [])


class Counts(NamedTuple):
    """Packets since the generator was started, at a moment of its own clock."""

    time_ns: int
    sent: int
    balanced: int  # came back in GRE
    plain: int  # came back as they were

    def since(self, before: Counts) -> Counts:
        """Returns what has been counted since."""
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


def parse_counts(line: str) -> Counts:
    """Returns the counts in a line of the generator's; LabError if it has ended or speaks otherwise."""
    words = line.split()
    if len(words) != len(Counts._fields) or not all(word.isdigit() for word in words):
        raise LabError(f"the generator was to say four numbers, and said {line.strip()!r}")
    return Counts(*map(int, words))


class Generator:
    """A running generator on the router's end of a wire."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def flood(self, seconds: float, rate: float = 0.0) -> None:
        """Begins to send, `rate` packets a second (0: as fast as it goes), for so many seconds at most."""
        self._say(f"flood {seconds:.3f} {rate:.0f}")

    def count(self) -> Counts:
        """Returns what has been sent and has come back so far."""
        return self._ask("count")

    def halt(self) -> Counts:
        """Stops sending; returns the counts when nothing comes back any more."""
        last = self._ask("halt")
        give_up = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < give_up:
            time.sleep(QUIET_S)
            now = self.count()
            if now[1:] == last[1:]:
                break
            last = now
        return last

    def _ask(self, command: str) -> Counts:
        self._say(command)
        assert self._process.stdout is not None
        return parse_counts(self._process.stdout.readline())

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise LabError("the generator has ended") from None


@contextlib.contextmanager
def generating(wire: Wire, traffic: Traffic) -> Iterator[Generator]:
    """Yields a generator that is ready; LabError with its complaint if this kernel cannot run it."""
    command = [str(compiled("traffic.c")), wire.router_end, str(compiled("traffic.bpf.c")), *traffic.options()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = wire.router.start("traffic", command, GENERATOR_CORE, **pipes)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        process.wait()
        complaint = wire.router.log("traffic").read_text().strip().splitlines() or ["it gives no reason"]
        raise LabError(f"the generator does not run on this kernel: {complaint[-1]}")
    generator = Generator(process)
    try:
        yield generator
    finally:
        with contextlib.suppress(LabError):
            generator._ask("halt")
