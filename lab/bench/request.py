"""What a user asks a bench for, checked before anything starts; and how far the bench has come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..errors import WrongUse

QUICK_SECONDS, QUICK_RUNS = 0.5, 3
LONGEST_S, MOST_RUNS = 60.0, 99

Step = Callable[[str], None]  # told what is done next


@dataclass(frozen=True)
class Request:
    """Which engines, how long a run, how many runs: None and () where the bench may choose."""

    engines: tuple[str, ...] = ()
    seconds: float | None = None
    runs: int | None = None
    quick: bool = False

    def chosen(self, there: Sequence[str]) -> list[str]:
        """Returns the engines asked for, in the order in which they are listed; WrongUse for one that is not there."""
        for name in self.engines:
            if name not in there:
                raise WrongUse(f"--engines {name}: not among those that this measures: {', '.join(there)}")
        return [name for name in there if name in self.engines or not self.engines]

    def seconds_or(self, default: float) -> float:
        """Returns the length of a run in seconds."""
        chosen = QUICK_SECONDS if self.quick else default
        seconds = chosen if self.seconds is None else self.seconds
        if not 0.1 <= seconds <= LONGEST_S:
            raise WrongUse(f"--seconds {seconds:g}: allowed are 0.1 to {LONGEST_S:g}")
        return seconds

    def runs_or(self, default: int) -> int:
        """Returns the number of runs."""
        chosen = min(QUICK_RUNS, default) if self.quick else default
        runs = chosen if self.runs is None else self.runs
        if not 1 <= runs <= MOST_RUNS:
            raise WrongUse(f"--runs {runs}: allowed are 1 to {MOST_RUNS}")
        return runs


def parse_engines(text: str | None) -> tuple[str, ...]:
    """Returns the names in a list such as `xdp,ring`; WrongUse for an empty one."""
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise WrongUse(f"--engines {text!r}: expected names with commas between them, such as xdp,ring")
    return names


@contextlib.contextmanager
def progress(console: Console, total: int) -> Iterator[Step]:
    """Yields what to call at the beginning of each of `total` steps: a bar on a terminal, a line each elsewhere."""
    if not console.is_terminal:
        yield _plain(console, total)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        begun = 0

        def step(text: str) -> None:
            nonlocal begun
            bar.update(task, description=text, completed=begun)
            begun += 1

        yield step


def _plain(console: Console, total: int) -> Step:
    start, begun = time.monotonic(), 0

    def step(text: str) -> None:
        nonlocal begun
        begun += 1
        console.print(f"{time.monotonic() - start:6.1f} s  {begun} of {total}: {text}", highlight=False, soft_wrap=True)

    return step
