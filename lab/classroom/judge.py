"""Judges a solution: each criterion in a process of its own, with a time limit, whatever the student's code does."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from .account import Account
from .criteria import LONGEST_SHOWN, Criterion
from .exercise import Exercise
from .runner import CRASHED, MISSING, NO_LAB, PASSED, SKIPPED, WRONG
from .side_by_side import Running, in_order
from .trial import NOT_BEGUN, TIMED_OUT, Trial

LARGEST_OUTPUT_BYTES = 4096  # of what a student's code prints, from its end


@dataclass(frozen=True)
class Judgement:
    """What came of one criterion."""

    criterion: str
    sentence: str
    step: int
    status: str  # passed, wrong, missing (not yet implemented), crashed, timed out, no lab, or skipped
    message: str
    hint: str
    steps: tuple[str, ...]  # what the check did until then
    output: str  # what the student's code printed
    points: int
    worth: int
    seconds: float
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # as `Case.measure` has it

    @property
    def passed(self) -> bool:
        """Says whether it passed, or could not be judged here, which is nobody's fault."""
        return self.status in (PASSED, SKIPPED)

    def lines(self) -> Iterator[str]:
        """Yields it for a person."""
        mark = {PASSED: "pass", MISSING: "gap ", SKIPPED: "skip"}.get(self.status, "FAIL")
        yield f"{mark}  {self.sentence}  [{self.points}/{self.worth}]"
        for name, (value, reference) in self.measured.items():
            yield f"      {name:12} {value:10.4g}   Maglev hashing {reference:10.4g}"
        if self.status == SKIPPED:
            yield f"      {self.message}"
        if self.passed:
            return
        yield f"      {self.told}"
        if self.status not in (MISSING, NO_LAB):
            yield from (f"      - {step}" for step in self.steps[-8:])
            yield f"      hint: {self.hint}"
        if self.output:
            yield from (f"      | {line[:LONGEST_SHOWN]}" for line in self.output.splitlines()[-5:])

    @property
    def told(self) -> str:
        """Returns what was wrong, in a sentence."""
        return f"not yet implemented: {self.message or 'something'}" if self.status == MISSING else self.message


@dataclass(frozen=True)
class Verdicts:
    """What came of a whole exercise."""

    exercise: str
    against: str
    seed: int
    judgements: tuple[Judgement, ...]

    @property
    def passed(self) -> bool:
        """Says whether all criteria passed."""
        return all(each.passed for each in self.judgements)

    @property
    def measured(self) -> dict[str, tuple[float, float]]:
        """Returns all that was measured, by name: a value, and the reference's."""
        return {name: pair for each in self.judgements for name, pair in each.measured.items()}

    @property
    def without_lab(self) -> str:
        """Returns why no lab could be started, "" if one could or none was needed."""
        return next((each.message for each in self.judgements if each.status == NO_LAB), "")

    @property
    def points(self) -> tuple[int, int]:
        """Returns the points reached, and those there are."""
        return sum(each.points for each in self.judgements), sum(each.worth for each in self.judgements)

    def document(self) -> dict[str, Any]:
        """Returns it for a JSON file."""
        reached, worth = self.points
        return {**asdict(self), "passed": self.passed, "points": reached, "worth": worth}


def check(
    exercise: Exercise,
    solution: Path | None,
    against: str,
    seed: int,
    meet: Callable[[Judgement], None] = lambda one: None,
    waiting: Callable[[Criterion, float], None] = lambda criterion, seconds: None,
    account: Account | None = None,
) -> Verdicts:
    """Judges a solution, None for the reference, by all criteria, two at a time where there are two processors.

    `meet` is told each judgement in order, as soon as it is known; `waiting`, now and then, by which criterion that is
    judged for which it waits, and for how many seconds already. Ctrl-C ends all that runs. As root, criteria that need
    no lab can be judged as another user.
    """
    points, running = exercise.points(), Running()
    criteria = list(exercise.check().criteria.values())
    things = [
        partial(judge, exercise, criterion, solution, seed + number, points.get(criterion.name, 0), running, account)
        for number, criterion in enumerate(criteria)
    ]
    judgements = []
    told = in_order(things, running, lambda which, seconds: waiting(criteria[which], seconds))
    with contextlib.closing(told):  # what Ctrl-C interrupts is ended, wherever it comes
        for judged in told:
            judgements.append(judged)
            meet(judged)
    return Verdicts(exercise.name, against, seed, tuple(judgements))


def judge(
    exercise: Exercise, criterion: Criterion, solution: Path | None, seed: int, worth: int,
    running: Running | None = None, account: Account | None = None, may_borrow: bool = False,
) -> Judgement:  # fmt: skip
    """Judges a solution by one criterion, in a process of its own; worth nothing if it cannot be judged here.

    One that `may_borrow` may leave to the reference what it does not do itself, as wrong ones for tests do.
    """
    began = time.monotonic()
    trial = Trial(exercise, criterion, solution, seed, may_borrow)
    with tempfile.TemporaryFile() as output:
        result, died = trial.run(output, running or Running(), account)
        printed = _tail(output)
    status, message, steps, measured = _understood(result, died, trial)
    worth = 0 if status == SKIPPED else worth
    return Judgement(
        criterion.name, criterion.sentence, criterion.step, status, message, criterion.hint, tuple(steps), printed,
        worth if status == PASSED else 0, worth, round(time.monotonic() - began, 3), measured,
    )  # fmt: skip


def _understood(result: bytes, died: str, trial: Trial) -> tuple[str, str, list[str], dict[str, Any]]:
    """Returns a judgement's status, message, steps and measurements."""
    criterion = trial.criterion
    if died == NOT_BEGUN:
        what, status = ("the lab was", NO_LAB) if criterion.lab is not None else ("the check was", TIMED_OUT)
        return status, f"{what} not ready after {trial.startup_s:g} s: is this machine busy?", [], {}
    if died == TIMED_OUT:
        return TIMED_OUT, f"it was not done after {criterion.seconds:g} s: is there a loop that does not end?", [], {}
    if died:
        return CRASHED, died, [], {}
    try:
        document = json.loads(result)
        status, message, steps = document["status"], str(document["message"]), [str(s) for s in document["steps"]]
        measured = {str(name): (float(pair[0]), float(pair[1])) for name, pair in document["measured"].items()}
        measured = {name: pair for name, pair in measured.items() if all(map(isfinite, pair))}  # JSON has no others
        is_ours = document["secret"] == trial.secret
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        is_ours = False
    if not is_ours or status not in (PASSED, WRONG, MISSING, CRASHED, NO_LAB, SKIPPED):
        return CRASHED, "it wrote into the grader's own files", [], {}
    return status, message, steps, measured


def _tail(output: Any) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - LARGEST_OUTPUT_BYTES))
    return str(output.read().decode("utf-8", "replace"))
