"""Results as Gradescope's autograder reads them (gradescope-autograders.readthedocs.io, "Output format")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .exercise import Exercise
from .judge import Judgement, Verdicts
from .runner import NO_LAB, SKIPPED


def gradescope(found: Sequence[Verdicts]) -> dict[str, Any]:
    """Returns the document for `results.json`: a test for each criterion, with its points and what was told."""
    tests = [_test(verdicts, each) for verdicts in found for each in verdicts.judgements]
    board = [(name, value) for verdicts in found for name, (value, _) in verdicts.measured.items()]
    return {
        "score": sum(test.get("score", 0) for test in tests),
        "execution_time": round(sum(each.seconds for verdicts in found for each in verdicts.judgements)),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
        "leaderboard": [{"name": name, "value": value, "order": "asc"} for name, value in board],
    }


def not_handed_in(exercise: Exercise) -> dict[str, Any]:
    """Returns the test for an exercise of which nothing was handed in."""
    return {
        "name": exercise.title,
        "number": f"{exercise.number:02}",
        "score": 0,
        "max_score": sum(exercise.points().values()),
        "status": "failed",
        "output": f"not handed in: there is no {exercise.name}/solution.py in the submission",
    }


def _test(verdicts: Verdicts, judged: Judgement) -> dict[str, Any]:
    """Returns one test; one that could not be judged here has neither points nor status, and says why."""
    told = {
        "name": judged.sentence,
        "number": f"{verdicts.exercise.partition('_')[0]}.{judged.step}",
        "output": "\n".join(judged.lines()),
    }
    if judged.status in (NO_LAB, SKIPPED):
        return told | {"output": f"not judged here: {judged.message}"}
    status = "passed" if judged.passed else "failed"
    return told | {"score": judged.points, "max_score": judged.worth, "status": status}
