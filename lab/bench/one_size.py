"""Runs one lab for `lab.bench.scale`, and says what it takes: `python -m lab.bench.one_size JSON`.

Standard output has lines of JSON: `{"stage": …}` whenever something else is done, at last the measurements, or
`{"error": …}`. SIGTERM, and the end of standard input, take the lab away. Should memory run out all the same, the
kernel ends this and what it started before anybody else's processes (`oom_score_adj`, proc(5)).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .. import interrupts
from ..errors import LabError, Terminated
from ..faults.registry import CONVERGE_TIMEOUT_S
from ..inventory import cpu_s_of, standing
from ..laboratory import Lab
from .scale import available_bytes

EXPENDABLE = "800"  # of at most 1000
CONNECTIONS = 4  # of each client
WINDOWS = 2  # of which the quieter counts


class Patient(Lab):
    """A lab that has all the time there is to converge."""

    limit_s = CONVERGE_TIMEOUT_S

    def wait_converged(self, timeout_s: float | None = None) -> float:
        return super().wait_converged(self.limit_s if timeout_s is None else timeout_s)


def main() -> None:
    asked = json.loads(sys.argv[1])
    interrupts.leave_on_signals()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    Path("/proc/self/oom_score_adj").write_text(EXPENDABLE)
    try:
        _say(_measurements(asked["options"], asked["window_s"], asked["limit_s"]))
    except (LabError, OSError) as error:
        _say({"error": str(error)})
    except Terminated:
        sys.exit(128 + signal.SIGTERM)


def _leave_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def _measurements(options: dict[str, int], window_s: float, limit_s: float) -> dict[str, Any]:
    available, wired_s, began = available_bytes(), 0.0, time.monotonic()

    def progress(text: str) -> None:
        nonlocal wired_s
        wired_s = time.monotonic() - began  # when the last of these comes, all is wired
        _say({"stage": text})

    lab = Patient("scale", progress=progress, **options)
    lab.limit_s = limit_s
    with lab:
        row = {"wired_s": round(wired_s, 2), "start_s": round(lab.start_s, 2)}
        _say({"stage": "measuring it idle"})
        row["idle_cores"] = round(min(_cores(lab, window_s) for _ in range(WINDOWS)), 3)
        now = standing(lab.site)
        row |= {"processes": len(now.processes), "memory_bytes": now.memory_bytes}
        row["taken_bytes"] = max(0, available - available_bytes())  # with what the kernel holds for it
        _say({"stage": "holding connections"})
        with lab.connections(CONNECTIONS * len(lab.clients)) as held:
            held.wait_settled()
            if held.broken:
                raise LabError(f"{held.broken} of {len(held.all())} connections broke")
        _say({"stage": "taking it away"})
        leaving = time.monotonic()
    return row | {"stop_s": round(time.monotonic() - leaving, 2)}


def _cores(lab: Lab, window_s: float) -> float:
    """Returns how many processors a lab's processes use, over some time."""
    before, began = cpu_s_of(lab.site), time.monotonic()
    time.sleep(window_s)
    now, took_s = cpu_s_of(lab.site), time.monotonic() - began
    return sum(cpu_s - before.get(pid, 0.0) for pid, cpu_s in now.items()) / took_s


if __name__ == "__main__":
    main()
