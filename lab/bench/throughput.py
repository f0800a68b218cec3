"""`maglab bench forwarder`: packets a second of every engine and yardstick, and their loss at 80 % of that.

Runs take turns, the first of all, then the second of all, so that a noisy minute of the machine hits all alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from ..errors import CannotStart, LabError
from . import needs, summary, traffic
from .measure import Flood, Run, measure
from .request import Request, Step, progress
from .yardsticks import ENGINES, Bench, Yardstick, all_yardsticks

SECONDS, RUNS = 2.0, 5
RATED_SHARE, RATED_RUNS = 0.8, 3

LeftOut = dict[str, str]  # name of a yardstick: why


def run(request: Request, bench: Bench, console: Console) -> dict[str, Any]:
    """Measures, and returns the document."""
    seconds, runs = request.seconds_or(SECONDS), request.runs_or(RUNS)
    subjects, left_out = available(request.chosen(ENGINES))
    rated_runs = min(runs, RATED_RUNS)
    with progress(console, len(subjects) * (runs + rated_runs)) as step:
        measured = take_turns(bench, subjects, [Flood(seconds)] * len(subjects), runs, step, left_out)
        rows, best = _rows(measured)
        floods = [Flood(seconds, rate=RATED_SHARE * row["pps"]) for row in rows]
        at_rate = take_turns(bench, best, floods, rated_runs, step, left_out, "at 80 %, ")
    for row, subject, flood in zip(rows, best, floods, strict=True):
        if subject in at_rate:
            row["at_80_percent"] = summary.rated(RATED_SHARE, flood.rate, at_rate[subject])
    return {
        "seconds": seconds,
        "runs": runs,
        "traffic": asdict(Flood(seconds).traffic),
        "rows": summary.with_ratios(rows),
        "left_out": left_out,
    }


def available(engines: Sequence[str]) -> tuple[list[Yardstick], LeftOut]:
    """Returns the yardsticks that can run here, and why the others cannot; CannotStart if there is no generator."""
    if lacking := needs.missing(traffic.NEEDS):
        raise CannotStart(f"the generator cannot be made: {lacking}")
    wanted = [yardstick for yardstick in all_yardsticks() if yardstick.engine in engines]
    left_out = {yardstick.name: why for yardstick in wanted if (why := yardstick.missing())}
    return [yardstick for yardstick in wanted if yardstick.name not in left_out], left_out


def take_turns(
    bench: Bench, subjects: Sequence[Yardstick], floods: Sequence[Flood], runs: int,
    step: Step, left_out: LeftOut, what: str = "",
) -> dict[Yardstick, list[Run]]:  # fmt: skip
    """Returns the runs of every subject; one that fails is left out from then on, with what it said."""
    measured: dict[Yardstick, list[Run]] = defaultdict(list)
    for number in range(1, runs + 1):
        for subject, flood in zip(subjects, floods, strict=True):
            step(f"{what}run {number}: {subject.name}")
            if subject.name in left_out:
                continue
            try:
                taken = measure(bench, subject, flood)
            except LabError as error:
                left_out[subject.name] = str(error)
            else:
                measured[subject].append(taken)
    return measured


def _rows(measured: dict[Yardstick, list[Run]]) -> tuple[list[summary.Row], list[Yardstick]]:
    """Returns a row for each engine, and the yardstick that its figures are of."""
    by_engine: dict[str, dict[str, Yardstick]] = defaultdict(dict)
    for yardstick in measured:
        by_engine[yardstick.engine][yardstick.variant] = yardstick
    rows, best = [], []
    for engine, variants in by_engine.items():
        row = summary.row_of(engine, {name: measured[yardstick] for name, yardstick in variants.items()})
        rows.append(row)
        best.append(variants[row["variant"]])
    return rows, best
