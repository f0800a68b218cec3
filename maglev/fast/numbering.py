"""Numbers for backends: tables of the fast path hold a number where the reference holds an address."""

from __future__ import annotations

from collections.abc import Iterable


class Numbering:
    """Gives every backend (16 bytes) a number, from 0 on, which it keeps for as long as the process lives.

    So an entry of the connection table still names its backend after any number of reloads.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.backends: list[bytes] = []  # by number

    def __len__(self) -> int:
        """Returns how many backends have a number."""
        return len(self.backends)

    def number(self, backend: bytes) -> int:
        """Returns a backend's number, a new one if it has none."""
        found = self._numbers.get(backend)
        if found is None:
            found = self._numbers[backend] = len(self.backends)
            self.backends.append(backend)
        return found

    def numbers(self, backends: Iterable[bytes]) -> list[int]:
        """Returns the numbers of several backends, in their order."""
        return [self.number(backend) for backend in backends]
