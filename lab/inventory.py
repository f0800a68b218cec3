"""Which labs there are on this machine, and what each costs: for `maglab ps`.

Everything is read from the ledgers and from /proc, so it needs no running `Lab`, and sees those of others as well.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .site import Process, Site

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
NOBODY = ""  # the node of what runs for the whole lab, such as its nursery


@dataclass(frozen=True)
class Running:
    """A process of a lab."""

    pid: int
    node: str  # "" for what runs for the whole lab
    what: str  # its name in the ledger, or the program's
    cpu_s: float  # since it started
    memory_bytes: int  # its part of what it shares, and all that it has for itself (PSS); what is resident, for others

    def document(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Standing:
    """A lab, and how it stands."""

    id: str
    state: str  # running, kept, or "owner dead"
    owner: int | None
    age_s: float  # since its first process started
    processes: tuple[Running, ...]

    @property
    def topology(self) -> str:
        """Returns the name of its topology."""
        return self.id.rpartition("-")[0]

    @property
    def cpu_s(self) -> float:
        """Returns what its living processes have used so far, in seconds of one processor."""
        return sum(process.cpu_s for process in self.processes)

    @property
    def memory_bytes(self) -> int:
        """Returns what its processes hold in memory, shared pages counted once."""
        return sum(process.memory_bytes for process in self.processes)

    def document(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return {
            "id": self.id,
            "topology": self.topology,
            "state": self.state,
            "owner": self.owner,
            "age_s": round(self.age_s, 1),
            "cpu_s": round(self.cpu_s, 2),
            "memory_bytes": self.memory_bytes,
            "processes": [process.document() for process in self.processes],
        }


def standing(site: Site) -> Standing:
    """Returns how a lab stands now."""
    living = site.processes()
    state = "running" if site.is_owned else "kept" if site.is_kept else "owner dead"
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    ages = [now_s - process.start_ticks / TICKS_A_SECOND for process in living]
    return Standing(
        site.id, state, site.owner.pid if site.owner else None, max(ages, default=0.0), tuple(_running(living))
    )


def cpu_s_of(site: Site) -> dict[int, float]:
    """Returns the processor time of a lab's living processes, by their numbers: what `standing` says, for less."""
    used = {}
    for process in site.processes():
        with contextlib.suppress(OSError):  # it has just ended
            used[process.pid] = _cpu_s(process.pid)
    return used


def _running(living: list[Process]) -> Iterator[Running]:
    """Yields processes by node; one that only its id tells of is at home where its network is."""
    homes = {_network(process.pid): node for process in living if (node := _node_of(process))}
    found = []
    for process in living:
        node = _node_of(process) or homes.get(_network(process.pid), NOBODY)
        with contextlib.suppress(OSError):  # it has just ended
            what = process.what.rpartition(": ")[2] if _is_named(process) else _program(process.pid)
            found.append(Running(process.pid, node, what, _cpu_s(process.pid), _memory_bytes(process.pid)))
    yield from sorted(found, key=lambda running: (running.node, running.pid))


def _node_of(process: Process) -> str:
    return process.what.rpartition(": ")[0]


def _is_named(process: Process) -> bool:
    return process.what == "nursery" or bool(_node_of(process))


def _network(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def _program(pid: int) -> str:
    """Returns what runs: the program, or for Python the module or the script and its first word."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    program = Path(words[0]).name
    if program.startswith("python") and "-m" in words:
        return " ".join(words[words.index("-m") + 1 :][:2]).strip()
    return program or Path(f"/proc/{pid}/comm").read_text().strip()


def _cpu_s(pid: int) -> float:
    """Returns fields 14 and 15 of /proc/PID/stat (proc(5)), in seconds."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICKS_A_SECOND


def _memory_bytes(pid: int) -> int:
    """Returns PSS, which root may read of everybody; otherwise what is resident."""
    for file, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(PermissionError, FileNotFoundError):
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    return 0
