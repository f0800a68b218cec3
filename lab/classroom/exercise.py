"""Exercises: where they are, what belongs to each, and how one is begun."""

from __future__ import annotations

import csv
import importlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import WrongUse
from ..own_files import load_module
from .criteria import Criterion

ROOT = Path(__file__).resolve().parents[2]
EXERCISES = ROOT / "exercises"
POINTS = "points.csv"  # beside the exercises: exercise, criterion, points of all of them, for who gives marks
WORK = "work"  # where students work: in the directory that they call from
AGAINST = ("work", "starter", "reference")


@dataclass(frozen=True)
class Exercise:
    """One exercise. Its check is loaded when it is asked for."""

    directory: Path

    @property
    def name(self) -> str:
        """Returns its directory's name, such as 03_hashing."""
        return self.directory.name

    @property
    def number(self) -> int:
        """Returns its number."""
        return int(self.name.partition("_")[0])

    @property
    def title(self) -> str:
        """Returns the first heading of its README."""
        first = (self.directory / "README.md").read_text(encoding="utf-8").partition("\n")[0]
        return first.removeprefix("#").strip()

    @property
    def starter(self) -> Path:
        """Returns the file with gaps."""
        return self.directory / "starter.py"

    def work(self, base: Path) -> Path:
        """Returns the student's file, in a directory to work in."""
        return base / WORK / self.name / "solution.py"

    def check(self) -> Check:
        """Returns the exercise's check; raises whatever a broken one raises."""
        return Check(load_module(self.directory / "check.py", f"exercise_{self.number:02}_check"))

    def points(self) -> dict[str, int]:
        """Returns what each criterion is worth."""
        with open(self.directory.with_name(POINTS), encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["exercise"] == self.name]
        return {row["criterion"]: int(row["points"]) for row in rows}

    def begin(self, base: Path, again: bool = False) -> Path:
        """Copies the starter and the questions to work in; returns the student's file.

        WrongUse if it has been begun already: nothing is overwritten, unless `again`, which keeps the old one beside.
        """
        target = self.work(base)
        if target.exists():
            if not again:
                raise WrongUse(f"{target} is there already: work on it, or begin anew with --again")
            target.rename(_unused(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.starter, target)
        questions = target.with_name("WRITEUP.md")
        if not questions.exists():
            shutil.copyfile(self.directory / "WRITEUP.md", questions)
        return target

    def solution(self, against: str, base: Path) -> Path | None:
        """Returns the file to judge, None for the reference, which is `maglev` itself.

        WrongUse if it has not been begun.
        """
        if against == "reference":
            return None
        path = self.starter if against == "starter" else self.work(base)
        if not path.is_file():
            raise WrongUse(f"exercise {self.number} has not been begun here: run maglab start {self.number}")
        return path


@dataclass(frozen=True)
class Check:
    """What a check.py holds."""

    module: ModuleType

    @property
    def references(self) -> tuple[str, ...]:
        """Returns the dotted names of the modules whose gaps the student fills, such as maglev.hashing.

        `REFERENCE` is one name, or a tuple of several: then one file of the student's stands for them all.
        """
        named = self.module.REFERENCE
        return (named,) if isinstance(named, str) else tuple(named)

    @property
    def withheld(self) -> tuple[str, ...]:
        """Returns those of `references` whose functions a solution may not call: all but `GIVEN`, if there are any."""
        given = getattr(self.module, "GIVEN", ())
        return tuple(name for name in self.references if name not in given)

    def reference(self) -> ModuleType:
        """Returns what is judged as the reference: a module with all that those modules name, the first's first."""
        modules = [importlib.import_module(name) for name in self.references]
        if len(modules) == 1:
            return modules[0]
        together = ModuleType("reference")
        for module in reversed(modules):
            vars(together).update({name: value for name, value in vars(module).items() if not name.startswith("__")})
        return together

    def student(self, solution: Path | None) -> dict[str, Path]:
        """Returns what a lab takes as `student`: the file that stands for each module; nothing for the reference."""
        return {} if solution is None else dict.fromkeys(self.references, solution)

    @property
    def criteria(self) -> dict[str, Criterion]:
        """Returns its criteria by name, in the order in which they stand."""
        found = [value for value in vars(self.module).values() if isinstance(value, Criterion)]
        return {each.name: each for each in found}

    @property
    def live(self) -> Mapping[str, Any]:
        """Returns what `maglab try` runs: a topology and its options."""
        return dict(getattr(self.module, "LIVE", {"topology": "rack"}))

    def prepare(self, lab: Any) -> str:
        """Does to the lab of `maglab try` what belongs to the exercise, if anything; returns what to say of it."""
        return str(getattr(self.module, "prepare", lambda lab: "")(lab))


def _unused(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in count(1))
    return next(name for name in names if not name.exists())


def beside(check: str, name: str) -> ModuleType:
    """Returns the module with a name that stands beside a check.py, which gives its own `__file__`; it is run anew."""
    directory = Path(check).parent
    return load_module(directory / f"{name}.py", f"exercise_{directory.name.partition('_')[0]}_{name}")


def exercises() -> list[Exercise]:
    """Returns all exercises, by number."""
    return [Exercise(path) for path in sorted(EXERCISES.glob("[0-9][0-9]_*")) if (path / "check.py").is_file()]


def find(text: str) -> Exercise:
    """Returns the exercise with a number, such as 3 or 03, or a name; WrongUse, naming all, if there is none."""
    there = exercises()
    for exercise in there:
        if text == exercise.name or (text.isdigit() and int(text) == exercise.number):
            return exercise
    names = ", ".join(exercise.name for exercise in there) or "none"
    raise WrongUse(f"there is no exercise {text!r}; there are {names}")
