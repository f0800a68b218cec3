"""`maglab start`, `check` and `try`: what a student types."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..errors import WrongUse
from .criteria import Criterion
from .exercise import Exercise, exercises, find
from .grades import gradescope
from .judge import Judgement, Verdicts
from .judge import check as judge_all
from .leaderboard import keep

console = Console()
SILENT_S = 2.0  # without a word, while something is judged
Number = Annotated[str | None, typer.Argument(metavar="EXERCISE", help="A number, such as 3, or a name.")]


class Against(StrEnum):
    """Whose solution is judged."""

    work = "work"
    starter = "starter"
    reference = "reference"


def start(
    exercise: Number = None,
    again: Annotated[bool, typer.Option("--again", help="Begin anew, and keep the old file beside.")] = False,
) -> None:
    """Copy an exercise's starter to work/, where you write; without a number, list all exercises."""
    if exercise is None:
        _list()
        return
    chosen = find(exercise)
    path = chosen.begin(Path.cwd(), again)
    _say(f"{chosen.title}\n  read   {_short(chosen.directory / 'README.md')}\n  write  {_short(path)}")
    _say(f"  check  maglab check {chosen.number}\n  try    sudo maglab try {chosen.number}")


def check(
    exercise: Number = None,
    all_: Annotated[bool, typer.Option("--all", help="Every exercise; in work/, those that have been begun.")] = False,
    against: Annotated[Against, typer.Option(help="Whose solution.")] = Against.work,
    seed: Annotated[int, typer.Option(help="Of all that is random; instructors keep theirs to themselves.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
    gradescope_file: Annotated[
        Path | None, typer.Option("--gradescope", metavar="FILE", help="Write the result as Gradescope wants it.")
    ] = None,
) -> None:
    """Judge a solution: what passes, what is wrong, and what is not there yet.

    Exit status: 0 passed, 1 failed, 2 wrong use, 3 no lab could be started.
    """
    found: list[Verdicts] = []
    for chosen in _chosen(exercise, all_, against):
        solution = chosen.solution(against.value, Path.cwd())
        _say(f"{chosen.title}: {_short(solution) if solution else ', '.join(chosen.check().references)}")
        found.append(_shown(chosen, solution, against.value, seed))
        if found[-1].measured and against is Against.work and solution:
            _say(_kept(solution, found[-1]))
        reached, worth = found[-1].points
        _say(f"{reached} of {worth} points{'' if found[-1].passed else '; start with the first that failed'}\n")
    _write(json_file, [each.document() for each in found])
    _write(gradescope_file, gradescope(found))
    if any(each.without_lab for each in found):
        raise typer.Exit(3)
    raise typer.Exit(0 if all(each.passed for each in found) else 1)


def _shown(exercise: Exercise, solution: Path | None, against: str, seed: int) -> Verdicts:
    """Judges a solution; tells each judgement, and on a terminal what takes long."""
    status = console.status("")

    def waiting(criterion: Criterion, seconds: float) -> None:
        if seconds > SILENT_S and console.is_terminal:
            status.update(Text(f"{seconds:.0f} s  {criterion.sentence}", no_wrap=True, overflow="ellipsis"))
            status.start()

    def meet(judged: Judgement) -> None:
        status.stop()
        _say("\n".join(judged.lines()))

    try:
        return judge_all(exercise, solution, against, seed, meet, waiting)
    finally:
        status.stop()


def _kept(solution: Path, verdicts: Verdicts) -> str:
    """Writes the leaderboard, and returns where; or why not, which is no reason to keep the points from anybody."""
    try:
        return f"written to {_short(keep(solution, verdicts.measured))}"
    except WrongUse as error:
        return str(error)


def try_(exercise: Number = None) -> None:
    """Run the exercise's lab with your code in it, in the console."""
    from ..console import converse
    from ..laboratory import Lab

    if exercise is None:
        raise WrongUse("name an exercise: maglab try 3")
    chosen = find(exercise)
    solution = chosen.solution("work", Path.cwd())
    loaded = chosen.check()
    options: dict[str, Any] = dict(loaded.live)
    with Lab(options.pop("topology"), student=loaded.student(solution), progress=_say, **options) as lab:
        _say(f"up in {lab.start_s:.1f} s, with your code in it; help lists what can be done, exit takes it all away")
        if told := loaded.prepare(lab):
            _say(told)
        status = converse(lab)
        _say("taking it away")
    raise typer.Exit(status)


def _chosen(exercise: str | None, all_: bool, against: Against) -> list[Exercise]:
    if all_ == (exercise is not None):
        raise WrongUse("name an exercise, such as maglab check 3, or give --all")
    if exercise is not None:
        return [find(exercise)]
    there = exercises()
    begun = [each for each in there if against is not Against.work or each.work(Path.cwd()).is_file()]
    if not begun:
        raise WrongUse("no exercise has been begun here: run maglab start 1")
    return begun


def _list() -> None:
    for each in exercises():
        begun = "begun" if each.work(Path.cwd()).is_file() else ""
        _say(f"{each.number:3}  {each.title}  {begun}".rstrip())


def _short(path: Path) -> str:
    """Returns a path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _write(path: Path | None, document: object) -> None:
    if path is not None:
        try:
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise WrongUse(f"cannot write {path}: {error.strerror}") from None


def register(app: typer.Typer) -> None:
    """Adds the classroom's commands to the command line."""
    app.command("start", short_help="Begin an exercise.")(start)
    app.command("check", short_help="Judge your solution of an exercise.")(check)
    app.command("try", short_help="Run a lab with your solution in it.")(try_)
