"""The template of an exercise: copied and given a name, it is an exercise; filled in, it is passed."""

from __future__ import annotations

import csv
import re
import shutil

import pytest
from solutions import criteria_of, expect_gap, expect_passed, expect_told, judged, meant

from lab.classroom.exercise import EXERCISES, Exercise

FILLED = (
    ("1", "return n > 1 and all(n % divisor for divisor in range(2, n))"),
    ("2", "near = [p for p in range(n - 50, n + 50) if is_prime(p)]\n"
     "    return tuple([p for p in near if p < n][-1:] + [p for p in near if p > n][:1])"),
)  # fmt: skip


@pytest.fixture
def exercise(tmp_path):
    """The template, copied as docs/teaching.md says."""
    directory = shutil.copytree(EXERCISES / "template", tmp_path / "exercises" / "15_primes")
    for path in directory.iterdir():
        path.write_text(path.read_text().replace("NN_name", "15_primes").replace("NN", "15"))
    (directory / "points.csv").rename(directory.parent / "points.csv")
    return Exercise(directory)


def by_all(exercise, solution):
    return judged(exercise, [(each, solution) for each in criteria_of(exercise, live=False)])


def fill(exercise, path):
    """Writes the starter with its gaps filled."""
    text = exercise.starter.read_text()
    for step, code in FILLED:
        text, count = re.subn(rf'raise NotImplementedError\("step {step}: .*"\)', lambda _, code=code: code, text)
        assert count == 1
    path.write_text(text)
    return path


def test_it_has_a_name_points_and_questions(exercise, tmp_path):
    assert (exercise.number, exercise.title) == (15, "15. Title")
    assert exercise.points().keys() == exercise.check().criteria.keys()
    assert exercise.begin(tmp_path).with_name("WRITEUP.md").read_text().startswith("# 15. Title: questions")
    steps = re.findall(r"^## Step (\d+)", (exercise.directory / "README.md").read_text(), re.M)
    assert {each.step for each in exercise.check().criteria.values()} == set(map(int, steps))


def test_the_reference_passes_the_starter_has_gaps_and_what_is_filled_in_passes(exercise, tmp_path):
    expect_passed(by_all(exercise, None))
    for found in by_all(exercise, exercise.starter):
        expect_gap(found)
        assert found.status == "missing"
    expect_passed(by_all(exercise, fill(exercise, tmp_path / "solution.py")))


def test_its_wrong_solution_fails_where_it_should(exercise):
    wrong = exercise.directory / "wrong.py"
    (criterion,), _ = meant(wrong)
    (found,) = judged(exercise, [(exercise.check().criteria[criterion], wrong)])
    expect_told(wrong, found)


def test_what_its_readme_shows_is_what_is_printed(exercise):
    wrong = exercise.directory / "wrong.py"
    (found,) = judged(exercise, [(exercise.check().criteria[meant(wrong)[0][0]], wrong)])
    printed = "\n".join(found.lines()).replace("[0/1]", "[0/2]")  # points are not told to the judge here
    assert printed in (exercise.directory / "README.md").read_text()


def test_the_template_itself_is_no_exercise():
    with open(EXERCISES / "points.csv", newline="") as file:
        assert "NN_name" not in {row["exercise"] for row in csv.DictReader(file)}
