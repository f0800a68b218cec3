"""What `maglab pcap` was asked for, and does: reads captures, or watches a link of a running lab."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import capture, pcap, wiring
from .decode import Interest, interest
from .errors import WrongUse
from .site import Site
from .trace import shells_of

Write = Callable[[str], object]
POLL_S = 0.1


@dataclass(frozen=True)
class Asked:
    """The words and options; WrongUse for what does not go together."""

    what: Sequence[str]
    flow: str | None = None
    only: bool = False
    write: Path | None = None
    pipe: bool = False
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.only and not self.flow:
            raise WrongUse("--only needs --flow, to say which flow")
        if self.files and (self.pipe or self.write):
            raise WrongUse("--pipe and --write are for a link of a running lab, not for captures")
        if not self.files and len(self.what) > 1:
            missing = next((word for word in self.what if not os.path.exists(word)), "")
            raise WrongUse(f"{missing} is no file; name one link, such as r1-m1, or files and directories")

    @cached_property
    def files(self) -> list[Path]:
        """Returns the captures that were named; none, if a link was."""
        paths = [Path(word) for word in self.what]
        is_files = all(path.exists() for path in paths) or any(os.sep in word for word in self.what)
        return paths if is_files else []

    @cached_property
    def interest(self) -> Interest | None:
        """Returns the flow to mark."""
        return interest(self.flow) if self.flow else None


def read(asked: Asked, write: Write) -> pcap.Tally:
    """Shows captures."""
    recorded = capture.recorded(asked.files)
    if said := pcap.not_seen(recorded.watched):
        print(said, file=sys.stderr)
    tally = pcap.show(capture.packets(recorded), write, asked.interest, asked.only)
    print(tally, file=sys.stderr)
    return tally


def watch(asked: Asked, site: Site, write: Write) -> None:
    """Shows a link of a running lab until Ctrl-C, keeps its packets, or pipes them on."""
    wires, pids, link = wiring.read(site.directory / wiring.FILE), shells_of(site), asked.what[0]
    wires.link(link)  # before anything starts
    if asked.pipe:
        _pipe(site, wires, pids, link)
    elif asked.write is not None:
        _keep(asked, site, wires, pids, link, write)
    else:
        _show(asked, site, wires, pids, link, write)


def _pipe(site: Site, wires: wiring.Wiring, pids: dict[str, int], link: str) -> None:
    if os.isatty(sys.stdout.fileno()):
        raise WrongUse("--pipe writes a capture, which a terminal cannot show: add | wireshark -k -i - or > FILE")
    pcap.pipe(site, wires, pids, link)


def _keep(asked: Asked, site: Site, wires: wiring.Wiring, pids: dict[str, int], link: str, write: Write) -> None:
    assert asked.write is not None
    chosen = capture.watches(wires, pids, [link])
    give_up = time.monotonic() + asked.seconds if asked.seconds is not None else float("inf")
    with capture.Captures(site, wires, chosen, asked.write.absolute()), contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < give_up and site.directory.exists():
            time.sleep(POLL_S)
    write(f"kept in {asked.write}: maglab pcap {asked.write}")


def _show(asked: Asked, site: Site, wires: wiring.Wiring, pids: dict[str, int], link: str, write: Write) -> None:
    with pcap.Live(site, wires, pids, link) as live, contextlib.suppress(KeyboardInterrupt):
        if said := pcap.not_seen(live.watched):
            print(said, file=sys.stderr)
        print(f"watching {wires.link(link).name}; Ctrl-C ends it", file=sys.stderr, flush=True)
        pcap.show(live.until(asked.seconds), write, asked.interest, asked.only)
