"""Judges one criterion, in a process of its own: students' code runs here, and nowhere else in the grader.

    python -m lab.classroom.runner EXERCISE CRITERION SOLUTION SEED

SOLUTION is a file, or "" for the reference. An empty line to the descriptor that the grader has opened says that all is
ready, and that the criterion's time begins; then comes what came of it, as JSON in a line. What students print goes
where their standard output goes. Whatever their code does, this process ends, or is ended: it has no more memory than
`MOST_MEMORY_BYTES`, and the grader's clock runs.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ..errors import errors_in
from ..own_files import load_module
from .criteria import Case, Criterion, Skipped, Wrong
from .exercise import Check, Exercise

RESULT_FD = "MAGLAB_RESULT_FD"
MOST_MEMORY_BYTES = 2 << 30
LARGEST_FILE_BYTES = 64 << 20
PASSED, WRONG, MISSING, CRASHED, NO_LAB = "passed", "wrong", "missing", "crashed", "no lab"
SKIPPED = "skipped"


def main(arguments: list[str]) -> None:
    """Judges what it is told to, says what came of it, and leaves without a look back."""
    directory, name, named, seed = arguments
    solution = Path(named) if named else None
    result_fd = int(os.environ.pop(RESULT_FD))
    os.set_inheritable(result_fd, False)
    exercise = Exercise(Path(directory))
    check = exercise.check()
    criterion = check.criteria[name]
    case = Case(int(seed))

    begun: list[bool] = []

    def ready() -> None:
        if not begun:
            os.write(result_fd, b"\n")
        begun.append(True)

    if lacking := criterion.lacks():
        status, message = SKIPPED, lacking
    elif criterion.lab is None:
        _limit()
        status, message = _judged(criterion, case, check, solution, ready)
    else:
        status, message = _judged_in_lab(criterion, case, check.student(solution), ready)
    ready()  # where no lab could be started it has not been said yet
    document = {"status": status, "message": message, "steps": case.steps[-40:], "measured": case.measured}
    os.write(result_fd, json.dumps(document).encode() + b"\n")
    sys.stdout.flush()
    os._exit(0)


def _limit() -> None:
    """Takes from this process what a solution has no use for."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _judged(
    criterion: Criterion, case: Case, check: Check, solution: Path | None, ready: Callable[[], None]
) -> tuple[str, str]:
    try:
        ready()
        student = load_module(solution, "solution") if solution else check.reference()
        criterion.judge(student, case)
    except Skipped as skipped:
        return SKIPPED, str(skipped)
    except Wrong as wrong:
        return WRONG, str(wrong)
    except NotImplementedError as gap:
        return MISSING, str(gap)
    except MemoryError:
        return CRASHED, f"it asked for more than the {MOST_MEMORY_BYTES >> 30} GB of memory that there are"
    except SystemExit as leaving:
        return CRASHED, f"it ended the program, by SystemExit({leaving.code!r})"
    except BaseException as error:  # a student's code may raise anything
        return CRASHED, _told(error, solution)
    return PASSED, ""


def _told(error: BaseException, solution: Path | None) -> str:
    """Returns an error in a sentence, with the line of the student's file at which it came."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(solution)]
    if isinstance(error, SyntaxError) and error.filename == str(solution):
        lines.append(error.lineno)
    where = f" at line {lines[-1]} of {solution.name}" if lines and solution else ""
    kind, text = type(error), " ".join(str(error).split())[:300]
    name = f"{kind.__module__}.{kind.__name__}" if kind.__name__ == "error" else kind.__name__  # struct.error, for one
    return f"{name}{where}: {text}"


def _judged_in_lab(
    criterion: Criterion, case: Case, student: dict[str, Path], ready: Callable[[], None]
) -> tuple[str, str]:
    """Judges in a lab whose daemons run the student's code; none of it runs in this process."""
    from ..errors import CannotStart, LabError, NotInTime
    from ..laboratory import Lab

    signal.signal(signal.SIGTERM, _leave)
    options: dict[str, Any] = dict(criterion.lab or {})
    try:
        with Lab(options.pop("topology", "rack"), student=student, **options) as lab:
            ready()
            try:
                criterion.judge(lab, case)
            except (Wrong, LabError):
                if gap := _gap_in(_last_words(lab.directory)):
                    return MISSING, gap
                raise
    except Wrong as wrong:
        return WRONG, str(wrong)
    except Skipped as skipped:
        return SKIPPED, str(skipped)
    except NotImplementedError as gap:  # of a function that was asked (`asking`)
        return MISSING, str(gap)
    except CannotStart as error:
        return NO_LAB, str(error)
    except NotInTime as error:
        gap = _gap_in([str(error)])
        return (MISSING, gap) if gap else (WRONG, f"in the lab, {error}")
    except LabError as error:
        gap = _gap_in([str(error)])
        return (MISSING, gap) if gap else (CRASHED, str(error))
    return PASSED, ""


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Has SIGTERM take the lab away, as whatever else ends it."""
    raise SystemExit(128 + number)


def _last_words(directory: Path) -> list[str]:
    """Returns with what errors a lab's daemons broke off, and prints them, for the student to see."""
    said = [
        f"{log.parent.name}'s {log.stem}: {line}"
        for log in sorted(directory.glob("*/*.log"))
        for line in errors_in(log.read_text(encoding="utf-8", errors="replace"))
    ]
    for line in dict.fromkeys(said):
        print(line)
    return said


def _gap_in(texts: list[str]) -> str:
    """Returns which step is missing, the first that anybody has come to; "" if it is none."""
    found = (re.search(r"NotImplementedError: (.+)", text) for text in texts)
    return next((each[1] for each in found if each), "")


if __name__ == "__main__":
    main(sys.argv[1:])
