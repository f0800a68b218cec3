"""Every exercise: the reference passes, the untouched starter is told what is missing, and typical wrong solutions fail
where they should, with the words that are meant for them.

Wrong solutions are `tests/classroom/NN_name/*.py`. The last lines of their docstrings name the criterion at which they
fail, and part of what is said, or of a step before it; with several `says:` lines, one of these:

    criterion: table_1
    says: expected B0 in slot 1, got B1

Criteria that need a lab are left to `tests/emulation`.
"""

from __future__ import annotations

import ast
import csv
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from lab.classroom.exercise import EXERCISES, POINTS, exercises
from lab.classroom.judge import judge

WRONG = Path(__file__).parents[1] / "classroom"
PROCESSES = 2  # that judge at once: continuous integration has so many cores
ANOTHER_SEED = 2026  # than that of the reference
LEAST_WRONG = 3
LONGEST_S = 20.0

ALL = {exercise.name: exercise for exercise in exercises()}
FILES = sorted(WRONG.glob("*/*.py"))


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def without_lab(exercise):
    return {name: each for name, each in exercise.check().criteria.items() if each.lab is None}


def judged(exercise, solution, seed=1):
    """Judges a solution by the criteria that need no lab, several at once; returns judgements, in their order."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        criteria = without_lab(exercise).values()
        return list(pool.map(lambda one: judge(exercise, one, solution, seed, 1), criteria))


def meant(path):
    """Returns the criterion at which a wrong solution fails, and what is said then."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.findall(r"^criterion: (.+)$", text, re.M), re.findall(r"^says: (.+)$", text, re.M)


@cache
def wrong_ones_judged(name):
    """Judges an exercise's wrong solutions, several at once; returns judgements by file, None where it takes a lab."""
    exercise = ALL[name]
    criteria = exercise.check().criteria

    def one(path):
        chosen = criteria[meant(path)[0][0]]
        return None if chosen.lab is not None else judge(exercise, chosen, path, ANOTHER_SEED, 1)

    files = [path for path in FILES if path.parent.name == name]
    with ThreadPoolExecutor(PROCESSES) as pool:
        return dict(zip(files, pool.map(one, files), strict=True))


@pytest.mark.parametrize("name", ALL)
def test_the_reference_passes(name):
    found = judged(ALL[name], None)
    assert all(each.passed for each in found), "\n".join(line for each in found for line in each.lines())
    assert sum(each.seconds for each in found) < PROCESSES * LONGEST_S


@pytest.mark.parametrize("name", ALL)
def test_the_untouched_starter_is_told_the_step_that_is_missing(name):
    exercise = ALL[name]
    for each in judged(exercise, exercise.starter):
        assert each.status in ("missing", "skipped"), "\n".join(each.lines())
        if each.status == "missing":
            assert gap(each.told) <= each.step, f"{each.criterion} is judged before its step: {each.told}"


def gap(told):
    """Returns the step that is missing: that of the criterion, or one before it that stands in its way."""
    return int(re.fullmatch(r"not yet implemented: step (\d+): .+", told)[1])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_wrong_solution_fails_where_it_should_and_is_told_why(path):
    _, says = meant(path)
    found = wrong_ones_judged(path.parent.name)[path]
    if found is None:
        pytest.skip("a lab judges it: tests/emulation")
    if found.status == "skipped":
        pytest.skip(found.message)
    told = "\n".join(found.lines())
    assert not found.passed, f"{name_of(path)} passes {found.criterion}"
    assert found.status not in ("missing", "no lab"), told
    assert any(part in told for part in says), told


@pytest.mark.parametrize("name", ALL)
def test_there_are_wrong_solutions_enough(name):
    files = [path for path in FILES if path.parent.name == name]
    assert len(files) >= LEAST_WRONG
    for path in files:
        criteria, says = meant(path)
        assert len(criteria) == 1, f"{name_of(path)} names one criterion: {criteria}"
        assert says, f"{name_of(path)} says nothing"


@pytest.mark.parametrize("name", ALL)
def test_every_criterion_has_points_and_a_hint(name):
    exercise = ALL[name]
    assert exercise.points().keys() == exercise.check().criteria.keys()
    assert min(exercise.points().values()) > 0
    assert all(each.hint and each.sentence.endswith(".") for each in exercise.check().criteria.values())


@pytest.mark.parametrize("name", ALL)
def test_all_that_belongs_to_an_exercise_is_there(name):
    directory = ALL[name].directory
    for file in ("README.md", "starter.py", "check.py", "WRITEUP.md"):
        assert (directory / file).stat().st_size > 200, f"{file} of {name}"
    assert (directory / "README.md").read_text().startswith(f"# {ALL[name].number}. ")
    assert len(set(re.findall(r"^#+ Step (\d+)", (directory / "README.md").read_text(), re.M))) >= max(
        each.step for each in ALL[name].check().criteria.values()
    ), "a step of the check that the README does not tell of"


def test_points_name_exercises_that_exist():
    with open(EXERCISES / POINTS, newline="") as file:
        assert {row["exercise"] for row in csv.DictReader(file)} == ALL.keys()
    assert {path.parent.name for path in FILES} <= ALL.keys()
