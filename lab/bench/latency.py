"""`maglab bench latency`: how long a packet takes through the Maglev and back, and how much of that is the Maglev's.

The baseline is the kernel's own forwarding, done at once where the packet arrives: no other way is shorter.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from rich.console import Console

from ..errors import CannotStart, LabError
from ..waiting import wait_until
from . import needs
from .programs import compiled
from .request import Request, progress
from .wiring import GENERATOR_CORE, Wire, wired
from .yardsticks import Bench, Yardstick, maglev, start_kernel_forwarding

SECONDS, RUNS = 2.0, 5
RATES_PPS = (1_000, 20_000)
BASELINE = "kernel-forward"
ENGINES = (BASELINE, "ring", "xdp", "socket")
WARM_UP_PACKETS, WARM_UP_S = 1000, 10.0  # a second: a forwarder that has just started asks for a hundred routes

Key = tuple[Yardstick, int]  # who, at which rate


class Sample(NamedTuple):
    """What the prober has seen in one run."""

    sent: int
    lost: int
    p50_ns: int
    p99_ns: int
    p999_ns: int


def subjects(engines: Sequence[str]) -> list[Yardstick]:
    """Returns the baseline, and the forwarder with each engine: blocking, and polling where it can."""
    baseline = Yardstick(BASELINE, partial(start_kernel_forwarding, own_core=False), returns="plain")
    blocking = [maglev(engine) for engine in engines if engine != BASELINE]
    polling = [maglev(engine, busy_poll=True) for engine in engines if engine in ("ring", "xdp")]
    return [baseline, *sorted(blocking + polling, key=lambda each: engines.index(each.engine))]


def run(request: Request, bench: Bench, console: Console) -> dict[str, Any]:
    """Measures, and returns the document."""
    if lacking := needs.missing(needs.C):
        raise CannotStart(f"the prober cannot be made: {lacking}")
    seconds, runs = request.seconds_or(SECONDS), request.runs_or(RUNS)
    wanted = subjects(request.chosen(ENGINES))
    left_out = {subject.name: why for subject in wanted if (why := subject.missing())}
    samples: dict[Key, list[Sample]] = defaultdict(list)
    with progress(console, runs * len(wanted)) as step:
        for number in range(1, runs + 1):
            for subject in wanted:
                step(f"run {number}: {subject.name}")
                if subject.name not in left_out:
                    _probe(bench, subject, seconds, samples, left_out)
    return {"seconds": seconds, "runs": runs, "rows": rows_of(samples), "left_out": left_out}


def _probe(
    bench: Bench, subject: Yardstick, seconds: float, samples: dict[Key, list[Sample]], left_out: dict[str, str]
) -> None:
    try:
        with wired(bench.site) as wire:
            subject.start(bench, wire)
            wait_until(lambda: _lacks_packets(wire), WARM_UP_S, f"a packet through {subject.name}")
            for rate in RATES_PPS:
                taken = _sample(wire, round(rate * seconds), rate)
                samples[subject, rate].append(taken)
    except LabError as error:
        left_out[subject.name] = str(error)


def _lacks_packets(wire: Wire) -> str:
    first = _sample(wire, WARM_UP_PACKETS, RATES_PPS[0])
    return f"{first.lost} of {first.sent} packets did not come back" if first.lost else ""


def _sample(wire: Wire, packets: int, rate: int) -> Sample:
    command = ["taskset", "--cpu-list", str(GENERATOR_CORE), str(compiled("latency.c")), wire.router_end]
    return parse_sample(wire.router.run(*command, str(packets), str(rate)))


def parse_sample(line: str) -> Sample:
    """Returns what the prober has printed; LabError if it is something else."""
    words = line.split()
    if len(words) != len(Sample._fields) or not all(word.isdigit() for word in words):
        raise LabError(f"the prober was to say five numbers, and said {line.strip()!r}")
    return Sample(*map(int, words))


def rows_of(samples: dict[Key, list[Sample]]) -> list[dict[str, Any]]:
    """Returns a row for each engine and rate: medians over runs, and what they are above the baseline's."""
    rows = []
    for (subject, rate), taken in samples.items():
        row = {"engine": subject.engine, "variant": subject.variant, "rate_pps": rate} | _medians(taken)
        baseline = next((other for other in [*rows, row] if _is_baseline(other, rate)), None)
        if baseline is not None:
            row |= {f"added_{name}": round(row[name] - baseline[name], 1) for name in ("p50_us", "p99_us", "p999_us")}
        rows.append(row)
    return rows


def _is_baseline(row: dict[str, Any], rate: int) -> bool:
    return row["engine"] == BASELINE and row["rate_pps"] == rate


def _medians(taken: Sequence[Sample]) -> dict[str, Any]:
    def median_us(field: str) -> float:
        return round(statistics.median(getattr(sample, field) for sample in taken) / 1e3, 1)

    return {
        "p50_us": median_us("p50_ns"),
        "p99_us": median_us("p99_ns"),
        "p999_us": median_us("p999_ns"),
        "loss_per_mille": round(1e3 * sum(each.lost for each in taken) / sum(each.sent for each in taken), 3),
        "runs": [round(sample.p50_ns / 1e3, 1) for sample in taken],
    }
