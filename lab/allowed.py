"""What may be said to a topology: each check raises a ValueError that names what was wrong, and what is allowed.

Pure, and only the standard library, as all that topologies use.
"""

from __future__ import annotations

from collections.abc import Iterable


def whole(what: str, number: object, least: int, most: int) -> None:
    """Takes whole numbers from `least` to `most`."""
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        refuse(what, number, f"a whole number from {least} to {most}")


def some(most: int, **numbers: object) -> None:
    """Takes whole numbers from 1 to `most`, each under the name that it has as a keyword."""
    for what, number in numbers.items():
        whole(what, number, 1, most)


def amount(what: str, number: object, most: float) -> None:
    """Takes numbers above 0, and at most `most`."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= most:
        refuse(what, number, f"a number above 0, at most {most:g}")


def one_of(what: str, value: object, values: Iterable[str]) -> None:
    """Takes one of some values."""
    allowed = list(values)
    if value not in allowed:
        refuse(what, value, f"{', '.join(allowed[:-1])} or {allowed[-1]}" if len(allowed) > 1 else allowed[0])


def refuse(what: str, value: object, allowed: str) -> None:
    """Raises the error itself, for whatever else is not allowed."""
    raise ValueError(f"{what}={value!r} is not allowed; allowed: {allowed}")
