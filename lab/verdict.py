"""A verdict: a claim about a lab, whether it holds, and what one has to look at to believe it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """A claim, judged. Truth value: whether it holds."""

    claim: str  # a sentence: "no connection broke that should have lived"
    holds: bool
    expected: str
    actual: str
    evidence: tuple[str, ...] = ()  # what shows it, a line each: the connections, the routes, the counters
    look_at: str = ""  # where to look for the cause, if it does not hold

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        lines = [f"{'holds' if self.holds else 'DOES NOT HOLD'}: {self.claim}"]
        if not self.holds:
            lines += [f"  expected: {self.expected}", f"  actual:   {self.actual}"]
            lines += [f"  {line}" for line in self.evidence]
            lines += [f"  look at: {self.look_at}"] if self.look_at else []
        return "\n".join(lines)


def failed(verdicts: Iterable[Verdict]) -> str:
    """Returns the verdicts that do not hold, as text; "" if all hold."""
    return "\n".join(str(verdict) for verdict in verdicts if not verdict)
