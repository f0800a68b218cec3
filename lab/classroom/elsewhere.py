"""A student's function, called in another Python process: what another machine would make of the same.

Python salts its own `hash` anew in every process, and whatever a process remembers or has counted, another has not.
"""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from types import ModuleType
from typing import Any

from .criteria import Case
from .exercise import ROOT

CALL = """
import base64, importlib, pickle, sys
from fractions import Fraction
from pathlib import Path
from lab.own_files import load_module
file, module, name, arguments = pickle.loads(base64.b64decode(sys.argv[1]))
found = load_module(Path(file), "solution") if file else importlib.import_module(module)
answer = getattr(found, name)(*arguments)
answer = getattr(answer, "tolist", lambda: answer)()
print(*map(Fraction, answer if hasattr(answer, "__len__") else [answer]), file=sys.stderr)
"""


def numbers(case: Case, student: ModuleType, name: str, *arguments: Any) -> list[Fraction]:
    """Returns the number, or the numbers, that a function of a student's module returns in another process.

    Arguments are what can be pickled. Wrong if there is no such answer; it says what the process said at last.
    """
    file = student.__file__ if student.__name__ == "solution" else None
    call = file, getattr(student, name).__module__, name, arguments
    done = subprocess.run(
        [sys.executable, "-c", CALL, base64.b64encode(pickle.dumps(call)).decode()],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(case.random.randrange(1, 2**32))},
    )  # fmt: skip
    said = done.stderr.strip().rpartition("\n")[2]
    case.expect_that(done.returncode == 0, f"expected {name}() to answer in another process too, got {said}")
    return [Fraction(number) for number in said.split()]
