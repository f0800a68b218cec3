"""Numbered messages of one flow, and what their answers say of the way: loss, duplicates, order, who answers.

Reordering is RFC 4737's (§3.3, Type-P-Reordered): a number smaller than one that has come before.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Sequence:
    """One flow. Numbers count from 0."""

    sent: int = 0
    answered: int = 0  # different numbers
    duplicates: int = 0
    reordered: int = 0
    endpoint: str = ""  # who answered last
    endpoint_changes: int = 0
    _next: int = 0  # the smallest number that none has come beyond
    _missing: set[int] = field(default_factory=set)  # below that

    def send(self) -> int:
        """Returns the number of the next message."""
        self.sent += 1
        return self.sent - 1

    def answer(self, number: int, endpoint: str) -> bool:
        """Takes in an answer; says whether it is the first to its message."""
        if number >= self._next:
            self._missing.update(range(self._next, number))
            self._next = number + 1
        elif number in self._missing:
            self._missing.remove(number)
            self.reordered += 1
        else:
            self.duplicates += 1
            return False
        self.answered += 1
        self.endpoint_changes += bool(self.endpoint) and endpoint != self.endpoint
        self.endpoint = endpoint
        return True

    @property
    def lost(self) -> int:
        """Returns how many were not answered, or not yet."""
        return self.sent - self.answered
