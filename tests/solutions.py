"""Solutions of exercises, judged for tests: the reference, the starter, and the typical wrong ones.

Wrong solutions are `tests/classroom/NN_name/*.py`. The last lines of their docstrings name the criterion at which they
fail, and part of what is said, or of a step before it; with several `says:` lines, one of these. What they do not do
themselves they may borrow from the reference:

    criterion: table_1
    says: expected B0 in slot 1, got B1
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from lab.classroom.criteria import Criterion
from lab.classroom.exercise import Exercise, exercises
from lab.classroom.judge import Judgement, judge

WRONG = Path(__file__).with_name("classroom")
PROCESSES = 2  # that judge at once: continuous integration has so many cores
ANOTHER_SEED = 2026  # than that of the reference

ALL = {exercise.name: exercise for exercise in exercises()}
FILES = sorted(WRONG.glob("*/*.py"))


def name_of(path: Path) -> str:
    """Returns what a wrong solution is called in a test's name."""
    return f"{path.parent.name}/{path.stem}"


def criteria_of(exercise: Exercise, live: bool) -> list[Criterion]:
    """Returns an exercise's criteria that need a lab, or those that need none."""
    return [each for each in exercise.check().criteria.values() if (each.lab is not None) is live]


def wrong_ones(exercise: Exercise, live: bool) -> list[Path]:
    """Returns an exercise's wrong solutions that a lab finds out, or those that need none for it."""
    names = {each.name for each in criteria_of(exercise, live)}
    return [path for path in FILES if path.parent.name == exercise.name and names.intersection(meant(path)[0])]


def meant(path: Path) -> tuple[list[str], list[str]]:
    """Returns the criterion at which a wrong solution fails, and what is said then."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.findall(r"^criterion: (.+)$", text, re.M), re.findall(r"^says: (.+)$", text, re.M)


def judged(exercise: Exercise, asked: Sequence[tuple[Criterion, Path | None]], seed: int = 1) -> list[Judgement]:
    """Judges solutions, None for the reference, each by a criterion, several at once; returns what came, in order."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(lambda one: judge(exercise, *one, seed, 1, may_borrow=one[1] in FILES), asked))


@cache
def wrong_ones_judged(exercise: str, live: bool) -> dict[Path, Judgement]:
    """Returns what came of an exercise's wrong solutions, each by the criterion at which it fails."""
    files = wrong_ones(ALL[exercise], live)
    criteria = ALL[exercise].check().criteria
    asked = [(criteria[meant(path)[0][0]], path) for path in files]
    return dict(zip(files, judged(ALL[exercise], asked, ANOTHER_SEED), strict=True))


def expect_passed(found: Sequence[Judgement]) -> None:
    """Fails, with all that was told, unless all have passed."""
    assert all(each.passed for each in found), "\n".join(line for each in found for line in each.lines())


def expect_gap(found: Judgement) -> None:
    """Fails unless a step was missing, that of the criterion or one before it that stands in its way."""
    assert found.status in ("missing", "skipped"), "\n".join(found.lines())
    if found.status == "missing":
        missing = re.fullmatch(r"not yet implemented: step (\d+): .+", found.told)
        assert missing, found.told
        assert int(missing[1]) <= found.step, f"{found.criterion} is judged before its step: {found.told}"


def expect_told(path: Path, found: Judgement) -> None:
    """Fails unless a wrong solution has failed, and was told what is meant for it; skips what this machine lacks."""
    if found.status == "skipped":
        pytest.skip(found.message)
    told = "\n".join(found.lines())
    assert not found.passed, f"{name_of(path)} passes {found.criterion}"
    assert found.status not in ("missing", "no lab"), told
    assert any(part in told for part in meant(path)[1]), told
