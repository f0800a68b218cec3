"""docs/teaching.md names every exercise: its goal, its common mistakes, and its place in a course."""

from __future__ import annotations

import re

import pytest
from solutions import ALL

from lab.classroom.exercise import ROOT

TEXT = (ROOT / "docs" / "teaching.md").read_text()
SECTIONS = dict(zip(*[iter(re.split(r"^## (.+)$", TEXT, flags=re.M)[1:])] * 2, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_every_exercise_has_a_goal_and_a_common_mistake(name):
    number = ALL[name].number
    assert re.search(rf"^\| {number} [a-zA-Z]", SECTIONS["Learning goals"], re.M)
    assert re.search(rf"^\| {number} \|", SECTIONS["Common mistakes"], re.M)


def test_the_long_course_has_every_exercise():
    weeks = SECTIONS["Plans"].partition("**Twelve weeks**")[2]
    assert set(range(1, 15)) <= set(map(int, re.findall(r"\d+", weeks)))


def test_files_that_are_named_are_there():
    for path in re.findall(r"\]\(\.\./([^)]+)\)", TEXT):
        assert (ROOT / path).exists(), path
    assert not (ROOT / "exercises" / "15_name").exists()
