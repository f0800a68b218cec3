"""Exercises in labs: criteria that need one are passed by the reference, the untouched starter is told what is missing,
and wrong solutions fail where they should, with the words that are meant for them.

What needs no lab is judged by `tests/unit/test_exercises.py`.
"""

from __future__ import annotations

import shutil
from functools import cache

import pytest
from solutions import (
    ALL,
    criteria_of,
    expect_gap,
    expect_passed,
    expect_told,
    judged,
    name_of,
    wrong_ones,
    wrong_ones_judged,
)

from lab.classroom.exercise import EXERCISES, Exercise

LIVE = [name for name, exercise in ALL.items() if criteria_of(exercise, live=True)]
WRONG = [path for exercise in ALL.values() for path in wrong_ones(exercise, live=True)]


@cache
def judged_in_labs(name):
    """Judges the reference by all criteria that need a lab, and the starter by the first of them, two at a time."""
    criteria = criteria_of(ALL[name], live=True)
    return judged(ALL[name], [(criteria[0], ALL[name].starter), *((each, None) for each in criteria)])


@pytest.mark.parametrize("name", LIVE)
def test_the_reference_passes_in_a_lab(name):
    expect_passed(judged_in_labs(name)[1:])


@pytest.mark.parametrize("name", LIVE)
def test_the_untouched_starter_in_a_lab_is_told_the_step_that_is_missing(name):
    expect_gap(judged_in_labs(name)[0])


def test_the_template_of_an_exercise_works_in_a_lab(tmp_path):
    template = Exercise(shutil.copytree(EXERCISES / "template", tmp_path / "15_primes"))
    expect_passed(judged(template, [(each, None) for each in criteria_of(template, live=True)]))


@pytest.mark.parametrize("path", WRONG, ids=name_of)
def test_a_wrong_solution_fails_in_a_lab_and_is_told_why(path):
    expect_told(path, wrong_ones_judged(path.parent.name, live=True)[path])
