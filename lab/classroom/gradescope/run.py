"""Judges a submission where Gradescope's autograder runs: `python -m lab.classroom.gradescope.run /autograder`.

    /autograder/source                      the unpacked archive, and in it grading.json
    /autograder/submission                  what was handed in: solution.py, or NN_name/solution.py of several exercises
    /autograder/submission_metadata.json    the submission's number, of which its seed is made
    /autograder/results/results.json        what came of it

Students' code runs as the user nobody, if this runs as root; but in labs, whose daemons must be root's, and which few
graders can have: what needs one is judged where a lab can be built, and is said not to have been judged elsewhere.
"""

from __future__ import annotations

import hmac
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..account import Account, account_of
from ..exercise import ROOT, Exercise, find
from ..grades import gradescope, not_handed_in
from ..judge import check
from .pack import GRADING

SOLUTION = "solution.py"
NOBODY = "nobody"
SEED_BITS = 31


def main(arguments: Sequence[str]) -> None:
    """Judges what was handed in, and writes the results."""
    autograder = Path(*arguments).absolute()
    grading = json.loads((ROOT / GRADING).read_text(encoding="utf-8"))
    seed = seed_of(grading["secret"], _number(autograder / "submission_metadata.json"))
    asked = [find(name) for name in grading["exercises"]]
    with _readable(found_in(autograder / "submission", asked)) as handed_in, _somebody() as account:
        there = [exercise for exercise in asked if exercise.name in handed_in]
        verdicts = [check(each, handed_in[each.name], "work", seed, account=account) for each in there]
    document = gradescope(verdicts)
    document["tests"] += [not_handed_in(exercise) for exercise in asked if exercise not in there]
    _write(autograder / "results", document | {"extra_data": {"seed": seed}})


def seed_of(secret: str, submission: str) -> int:
    """Returns a submission's seed: always the same, and known to nobody without the secret."""
    digest = hmac.digest(secret.encode(), submission.encode(), "sha256")
    return int.from_bytes(digest, "big") >> (8 * len(digest) - SEED_BITS)


def _number(metadata: Path) -> str:
    """Returns the submission's number, "" where Gradescope says none."""
    try:
        return str(json.loads(metadata.read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def found_in(submission: Path, asked: Sequence[Exercise]) -> dict[str, Path]:
    """Returns the solutions that were handed in, by exercise: in its directory, or anywhere if it is the only one.

    Links are passed over: they may lead out of the submission, to what students shall not read.
    """
    root = submission.resolve()
    there = [path for path in sorted(root.rglob(SOLUTION)) if path.is_file() and path.resolve() == path]
    found = {}
    for exercise in asked:
        paths = [path for path in there if path.parent.name == exercise.name]
        if not paths and len(asked) == 1:
            paths = there
        if paths:
            found[exercise.name] = paths[0]
    return found


@contextmanager
def _readable(found: dict[str, Path]) -> Iterator[dict[str, Path]]:
    """Has copies of the solutions where nobody in particular may read them, and may write nothing."""
    with tempfile.TemporaryDirectory(prefix="submission-") as directory:
        os.chmod(directory, 0o755)
        copies = {}
        for name, path in found.items():
            copies[name] = Path(directory) / name / SOLUTION
            copies[name].parent.mkdir()
            shutil.copyfile(path, copies[name])
            copies[name].chmod(0o644)
        yield copies


def _somebody() -> AbstractContextManager[Account | None]:
    return account_of(NOBODY) if os.geteuid() == 0 else nullcontext()


def _write(directory: Path, document: dict[str, Any]) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "results.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
