"""Every exercise: the reference passes, the untouched starter is told what is missing, and typical wrong solutions fail
where they should, with the words that are meant for them (`tests/solutions.py` says how these are written).

Criteria that need a lab are left to `tests/emulation/test_exercises_live.py`.
"""

from __future__ import annotations

import csv
import re

import pytest
from honest import honest
from solutions import (
    ALL,
    FILES,
    PROCESSES,
    criteria_of,
    expect_gap,
    expect_passed,
    expect_told,
    judged,
    meant,
    name_of,
    wrong_ones,
    wrong_ones_judged,
)

from lab.classroom.exercise import EXERCISES, POINTS

LEAST_WRONG = 3
LONGEST_S = 20.0
WITHOUT_LAB = [path for exercise in ALL.values() for path in wrong_ones(exercise, live=False)]


def by_all(exercise, solution):
    return judged(exercise, [(each, solution) for each in criteria_of(exercise, live=False)])


@pytest.mark.parametrize("name", ALL)
def test_the_reference_passes(name):
    found = by_all(ALL[name], None)
    expect_passed(found)
    assert sum(each.seconds for each in found) < PROCESSES * LONGEST_S


@pytest.mark.parametrize("name", ALL)
def test_what_the_reference_does_written_by_a_student_passes(name, tmp_path):
    """Nothing in it is found to be borrowed, or to change the check."""
    solution = tmp_path / "solution.py"
    solution.write_text(honest(ALL[name]))
    expect_passed(by_all(ALL[name], solution))


@pytest.mark.parametrize("name", ALL)
def test_the_untouched_starter_is_told_the_step_that_is_missing(name):
    for each in by_all(ALL[name], ALL[name].starter):
        expect_gap(each)


@pytest.mark.parametrize("path", WITHOUT_LAB, ids=name_of)
def test_a_wrong_solution_fails_where_it_should_and_is_told_why(path):
    expect_told(path, wrong_ones_judged(path.parent.name, live=False)[path])


@pytest.mark.parametrize("name", ALL)
def test_there_are_wrong_solutions_enough(name):
    files = [path for path in FILES if path.parent.name == name]
    assert len(files) >= LEAST_WRONG
    for path in files:
        criteria, says = meant(path)
        assert len(criteria) == 1, f"{name_of(path)} names one criterion: {criteria}"
        assert criteria[0] in ALL[name].check().criteria, f"{name_of(path)} names one that there is not"
        assert says, f"{name_of(path)} says nothing"


@pytest.mark.parametrize("name", ALL)
def test_every_criterion_has_points_and_a_hint(name):
    exercise = ALL[name]
    assert exercise.points().keys() == exercise.check().criteria.keys()
    assert min(exercise.points().values()) > 0
    assert all(each.hint and each.sentence.endswith(".") for each in exercise.check().criteria.values())


def test_the_table_of_points_has_each_criterion_once_in_the_order_of_exercises():
    rows = [line.rpartition(",")[0] for line in (EXERCISES / POINTS).read_text().splitlines()[1:]]
    assert len(rows) == len(set(rows)), f"twice: {sorted(row for row in set(rows) if rows.count(row) > 1)}"
    assert [row[:2] for row in rows] == sorted(row[:2] for row in rows)


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
