"""Results as Gradescope's autograder reads them (gradescope-autograders.readthedocs.io, "Output format")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .judge import Judgement, Verdicts


def gradescope(found: Sequence[Verdicts]) -> dict[str, Any]:
    """Returns the document for `results.json`: a test for each criterion, with its points and what was told."""
    tests = [_test(verdicts, each) for verdicts in found for each in verdicts.judgements]
    return {
        "score": sum(test["score"] for test in tests),
        "execution_time": round(sum(each.seconds for verdicts in found for each in verdicts.judgements)),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    }


def _test(verdicts: Verdicts, judged: Judgement) -> dict[str, Any]:
    return {
        "name": judged.sentence,
        "number": f"{verdicts.exercise.partition('_')[0]}.{judged.step}",
        "score": judged.points,
        "max_score": judged.worth,
        "status": "passed" if judged.passed else "failed",
        "output": "\n".join(judged.lines()),
    }
