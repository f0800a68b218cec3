"""Asks a student's function while a lab runs: in a process of its own, so that none of their code runs in the grader.

    python -m lab.classroom.asking maglev.persistence expected < ARGUMENTS

The arguments are a JSON list. The process finds in its environment, as all of the lab's do, which file stands for the
module. What the function returns comes back as JSON; what it prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from maglev.swap import swap_in_from_environment

from ..errors import LabError
from .criteria import Wrong
from .exercise import ROOT

if TYPE_CHECKING:
    from ..laboratory import Lab

LONGEST_S = 10.0


def ask(lab: Lab, module: str, function: str, *arguments: Any) -> Any:
    """Returns what a module's function, or the student's in its place, returns; arrays are given as lists.

    NotImplementedError if it is not there yet; Wrong if it takes too long; LabError if it raises anything else.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lab.classroom.asking", module, function],
            input=json.dumps(arguments, default=_listed), capture_output=True, text=True, check=False,
            cwd=ROOT, env=lab.site.environment, timeout=LONGEST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Wrong(f"{function} did not return within {LONGEST_S:g} s: is there a loop that does not end?") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise LabError(f"{function} ended the program: {done.stderr[-300:]}") from None
    if "missing" in answer:
        raise NotImplementedError(answer["missing"])
    if "error" in answer:
        raise LabError(f"{function}: {answer['error']}")
    return answer["returned"]


def _listed(value: Any) -> Any:
    """Returns what JSON has no word for, an array or a number of NumPy's, as it has."""
    return value.tolist() if hasattr(value, "tolist") else sorted(value)


def main(module: str, function: str) -> None:
    """Calls the function, and says what came of it."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        swap_in_from_environment(module.partition(".")[0])
        returned = getattr(importlib.import_module(module), function)(*json.load(sys.stdin))
        said = json.dumps({"returned": returned}, default=_listed)
    except NotImplementedError as gap:
        said = json.dumps({"missing": str(gap)})
    except Exception as error:  # a student's code may raise anything
        said = json.dumps({"error": f"{type(error).__name__}: {error}"})
    answers.write(said)
    answers.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
