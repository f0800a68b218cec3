"""The classroom: exercises are found and begun, students' code is judged, and runs in a live lab.

An exercise is a directory under `exercises/`: README, starter, check, write-up questions. The reference solution is
`maglev` itself. A `check.py` is written with what is named here:

    from lab.classroom import Case, criterion

    @criterion(step=1, hint="skip is never 0: it is taken modulo M - 1, plus 1")
    def visits_every_slot(student, case):
        \"\"\"A permutation visits every slot once.\"\"\"
        row = case.call(student.permutation, 3, 4, 7)
        case.expect(sorted(row), list(range(7)), "its slots, in order")
"""

from . import elsewhere
from .criteria import Case, Criterion, Wrong, criterion

__all__ = ["Case", "Criterion", "Wrong", "criterion", "elsewhere"]
