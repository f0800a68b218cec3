"""What was predicted and what was measured, side by side: rows of a table, and of a file. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from maglev.persistence import Counts, Shares

from .events import Event, Protection
from .theory import within_chance


@dataclass(frozen=True)
class Row:
    """One event under one protection; shares are of all connections that lived before it."""

    hash: str
    table: bool
    event: str
    lived: int
    broken: int
    doomed: int
    expected_broken: float
    expected_doomed: float
    agrees: bool  # the number that broke is one that chance brings about, if theory is right

    @property
    def protection(self) -> Protection:
        """Returns how the connections were kept."""
        return Protection(self.hash, self.table)

    @property
    def share(self) -> float:
        """Returns the share of the connections that broke."""
        return self.broken / self.lived if self.lived else 0.0

    def document(self) -> dict[str, Any]:
        """Returns it for a JSON file."""
        return {**asdict(self), "broken_share": round(self.share, 6)}


def row_of(protection: Protection, event: Event, counts: Counts, theory: Shares) -> Row:
    """Returns the row of what was measured and what was predicted."""
    agrees = within_chance(counts.broken, counts.lived, min(1.0, max(0.0, theory.broken)))
    return Row(protection.hash, protection.table, event.name, *counts, *theory, agrees)
