"""What some of a lab's processes cost: processor time, and memory in which pages that several share count once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..usage import TICKS_PER_S, parse


@dataclass(frozen=True)
class Cost:
    """What some processes use; memory that several share counts once (proportional set size)."""

    processes: int = 0
    memory_mb: float = 0.0
    cpu_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.memory_mb:.0f} MB, {self.cpu_s:.1f} s of processor time"


def cost_of(pids: Iterable[int], before: Mapping[int, float] | None = None) -> Cost:
    """Returns what these processes use; of processor time what came after `before`, which `cpu_of` returned.

    Those that have ended count for nothing.
    """
    living = cpu_of(pids)
    cpu_s = sum(seconds - (before or {}).get(pid, 0.0) for pid, seconds in living.items())
    return Cost(len(living), sum(map(_memory_mb, living)), cpu_s)


def cpu_of(pids: Iterable[int]) -> dict[int, float]:
    """Returns the processor time of each of these processes that lives, in seconds."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = parse(pid, Path(f"/proc/{pid}/stat").read_text()).cpu_ticks / TICKS_PER_S
    return found


def with_children(pids: Iterable[int]) -> list[int]:
    """Returns these processes and all that they have started."""
    found: list[int] = []
    for pid in pids:
        found.append(pid)
        with contextlib.suppress(OSError):
            found += with_children(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return found


def _memory_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1000
    return 0.0
