"""Packs the autograder for Gradescope: `make gradescope`, or `python -m lab.classroom.gradescope.pack --help`.

Seeds are made of a secret in the archive and of each submission's number: nobody can prepare for the cases that will be
tried, and a submission that is judged again gets the same.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import LabError
from ..exercise import ROOT, exercises, find

CONTENTS = ("maglev", "lab", "topologies", "exercises", "pyproject.toml", "README.md")
HERE = Path(__file__).parent
AT_THE_TOP = ("setup.sh", "run_autograder")  # where Gradescope looks for them
GRADING = "grading.json"
SECRET_BYTES = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Packs what the command line says."""
    parser = argparse.ArgumentParser(prog="make gradescope", description="Pack an autograder for Gradescope.")
    parser.add_argument("--exercise", action="append", metavar="N", help="one to judge, or several; else all")
    parser.add_argument("--secret", help="of which seeds are made; else it is drawn")
    parser.add_argument("--out", type=Path, default=Path("gradescope.zip"), metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        chosen = [find(text).name for text in options.exercise or ()] or [each.name for each in exercises()]
    except LabError as error:
        parser.error(str(error))
    secret = options.secret or secrets.token_hex(SECRET_BYTES)
    try:
        pack(options.out, chosen, secret)
    except OSError as error:
        parser.error(f"cannot write {options.out}: {error.strerror}")
    print(f"{options.out}: judges {', '.join(chosen)}; keep it to yourself, since it holds the secret of the seeds")


def pack(out: Path, chosen: Sequence[str], secret: str) -> None:
    """Writes the archive; none that is half-done takes the place of another."""
    aside = out.with_name(out.name + ".new")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files():
            archive.write(path, path.relative_to(ROOT))
        for name in AT_THE_TOP:
            archive.write(HERE / name, name)
        archive.writestr(GRADING, json.dumps({"exercises": list(chosen), "secret": secret}, indent=2) + "\n")
    aside.replace(out)


def _files() -> Iterator[Path]:
    for name in CONTENTS:
        path = ROOT / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (each for each in found if each.is_file() and "__pycache__" not in each.parts)


if __name__ == "__main__":
    sys.exit(main())
