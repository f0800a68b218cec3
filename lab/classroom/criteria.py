"""Criteria: what an exercise's check asks of a solution, one by one, and how it tells what it did.

A criterion is a function with a sentence for a docstring. It gets the student's module, or a lab in which the
student's code runs, and a `Case`: dice from the seed, and the steps so far, which are told when something is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

DEFAULT_SECONDS = 10.0
LONGEST_SHOWN = 200  # characters of a value that a message repeats


class Wrong(Exception):
    """A solution that does not do what it should; the text says what it should have done, and what it did."""


class Skipped(Exception):
    """A criterion that cannot be judged on this machine; the text says why."""


@dataclass(frozen=True)
class Criterion:
    """One thing that is judged."""

    name: str  # of the function
    sentence: str  # what is so if it passes
    step: int  # of the exercise's README, at which it can pass
    hint: str
    judge: Callable[[Any, Case], None]
    seconds: float  # that it may take
    lab: Mapping[str, Any] | None  # the topology and its options, if it needs a live lab
    lacks: Callable[[], str]  # what this machine lacks for it, "" if nothing


def criterion(
    *,
    step: int,
    hint: str,
    seconds: float = DEFAULT_SECONDS,
    lab: Mapping[str, Any] | None = None,
    lacks: Callable[[], str] = lambda: "",
) -> Callable[[Callable[[Any, Case], None]], Criterion]:
    """Makes a criterion of a function, whose docstring is the sentence.

    `lab` has what `Lab` takes: then the function gets a running lab with the student's code in it, not the module. It
    is skipped on a machine that `lacks` something.
    """

    def make(judge: Callable[[Any, Case], None]) -> Criterion:
        sentence = " ".join((judge.__doc__ or judge.__name__.replace("_", " ")).split())
        return Criterion(judge.__name__, sentence, step, hint, judge, seconds, lab, lacks)

    return make


@dataclass
class Case:
    """What a criterion does, step by step."""

    seed: int
    steps: list[str] = field(default_factory=list)
    measured: dict[str, tuple[float, float]] = field(default_factory=dict)  # by name: a value, and the reference's

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def step(self, text: str) -> None:
        """Tells what is being done: it is repeated if something is wrong."""
        self.steps.append(text)

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls a student's function, and tells so; returns what it returns."""
        words = [shown(argument) for argument in arguments]
        words += [f"{name}={shown(value)}" for name, value in options.items()]
        self.step(f"called {getattr(function, '__name__', function)}({', '.join(words)})")
        return function(*arguments, **options)

    def expect(self, actual: object, expected: object, what: str) -> None:
        """Goes on if something is as expected; Wrong, with both, if not."""
        if not _equal(actual, expected):
            self.wrong(f"expected {what}: {shown(expected)}, got {shown(actual)}")

    def expect_that(self, holds: object, sentence: str) -> None:
        """Goes on if a claim holds; Wrong, with the sentence that says what was expected and what came, if not."""
        if not holds:
            self.wrong(sentence)

    def expect_error(self, kind: type[Exception], function: Callable[..., Any], *arguments: Any) -> None:
        """Goes on if a call raises this kind of error; Wrong if it returns, or raises another."""
        try:
            got = self.call(function, *arguments)
        except kind:
            return
        self.wrong(f"expected {kind.__name__}, got {shown(got)}")

    def measure(self, name: str, value: float, reference: float) -> None:
        """Notes down what was measured, and what it is for the reference; less is better. The leaderboard has it."""
        self.measured[name] = float(value), float(reference)

    def skip(self, why: str) -> NoReturn:
        """Ends the criterion: this machine lacks what it takes. It counts for nothing."""
        raise Skipped(why)

    def wrong(self, sentence: str) -> NoReturn:
        """Ends the criterion: something is wrong."""
        raise Wrong(sentence)


def shown(value: object) -> str:
    """Returns a value as a message shows it: cut short, if it is long."""
    text = value.hex(" ") if isinstance(value, bytes | bytearray) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def _equal(actual: object, expected: object) -> bool:
    """Compares, arrays and lists of the same numbers being the same."""
    tolist = getattr(actual, "tolist", None)
    if tolist is not None and not isinstance(expected, type(actual)):
        actual = tolist()
    other = getattr(expected, "tolist", None)
    if other is not None:
        expected, actual = other(), tolist() if tolist is not None else actual
    return bool(actual == expected)
