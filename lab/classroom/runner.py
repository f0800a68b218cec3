"""Judges one criterion, in a process of its own: students' code runs here, and nowhere else in the grader.

    python -m lab.classroom.runner EXERCISE CRITERION SOLUTION SEED < SECRET

SOLUTION is a file, or "" for the reference; `BORROWS` in the environment lets it use the reference. The secret is read
before the student's code is there: a verdict without it is not this program's. An empty line to the descriptor that the
grader has opened says that all is ready, and that the criterion's time begins; then comes what came of it, as JSON in a
line. What students print goes where their standard output goes. Whatever their code does, this process ends, or is
ended: it has no more memory than `MOST_MEMORY_BYTES`, and the grader's clock runs.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ..errors import errors_in
from ..own_files import load_module
from .criteria import Case, Criterion, Skipped, Wrong
from .exercise import Check, Exercise
from .own_work import Borrowed, forbid, gaps, guard, not_written
from .seal import Seal

RESULT_FD, BORROWS = "MAGLAB_RESULT_FD", "MAGLAB_BORROWS"
MOST_MEMORY_BYTES = 2 << 30
LARGEST_FILE_BYTES = 64 << 20
PASSED, WRONG, MISSING, CRASHED, NO_LAB = "passed", "wrong", "missing", "crashed", "no lab"
SKIPPED = "skipped"


def main(arguments: list[str]) -> None:
    """Judges what it is told to, says what came of it, and leaves without a look back."""
    directory, name, named, seed = arguments
    solution = Path(named) if named else None
    result_fd, may_borrow = int(os.environ.pop(RESULT_FD)), bool(os.environ.pop(BORROWS, ""))
    os.set_inheritable(result_fd, False)
    secret = _only_reader_of(sys.stdin.fileno())
    exercise = Exercise(Path(directory))
    check = exercise.check()
    criterion = check.criteria[name]
    case = Case(int(seed))

    encode, write = json.JSONEncoder().encode, os.write  # as they are now, whatever a student's code makes of them
    begun: list[bool] = []

    def ready() -> None:
        if not begun:
            os.write(result_fd, b"\n")
        begun.append(True)

    wanted = gaps(exercise.starter) if solution and not may_borrow else []
    if lacking := criterion.lacks():
        status, message = SKIPPED, lacking
    elif criterion.lab is None:
        _limit()
        status, message = _judged(criterion, case, check, solution, wanted, ready)
    elif borrowed := solution and not_written(solution, wanted, check.withheld):
        status, message = WRONG, borrowed
    else:
        status, message = _judged_in_lab(criterion, case, check.student(solution), ready)
    ready()  # where no lab could be started it has not been said yet
    told = {"status": status, "message": message, "steps": case.steps[-40:], "measured": case.measured}
    write(result_fd, encode({**told, "secret": secret}).encode() + b"\n")
    sys.stdout.flush()
    os._exit(0)


def _only_reader_of(descriptor: int) -> str:
    """Returns what there is to read, and leaves nothing to read."""
    with os.fdopen(os.dup(descriptor), encoding="ascii") as given:
        text = given.read()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
    return text


def _limit() -> None:
    """Takes from this process what a solution has no use for."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _judged(
    criterion: Criterion, case: Case, check: Check, solution: Path | None, wanted: Sequence[str],
    ready: Callable[[], None],
) -> tuple[str, str]:  # fmt: skip
    """Judges here; and if that was changed by which it is judged, that is the verdict."""
    if solution:
        guard(solution, wanted, check.withheld)
    seal = Seal()
    ready()
    verdict = _verdict(criterion, case, check, solution, wanted)
    changed = seal.broken()
    return (CRASHED, changed) if changed else verdict


def _verdict(
    criterion: Criterion, case: Case, check: Check, solution: Path | None, wanted: Sequence[str]
) -> tuple[str, str]:
    try:
        student = load_module(solution, "solution") if solution else check.reference()
        forbid(student, wanted, check.withheld)
        criterion.judge(student, case)
    except Skipped as skipped:
        return SKIPPED, str(skipped)
    except (Wrong, Borrowed) as wrong:
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
