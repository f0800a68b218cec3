"""Whether a solution has left alone what judges it: both are in one process, and Python lets anybody change anything.

It finds out who changes the check while it is being judged. Who is determined can still hide it, or write a verdict of
their own: that is for people to see.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

JUDGES = ("lab", "maglev", "exercise", "json", "os", "builtins")  # packages, and what names of modules begin with
PARTS_OF_CLASSES = (FunctionType, staticmethod, classmethod, property)

Part = tuple[Any, str, object, CodeType | None]  # whose, by what name, what, and its code


class Seal:
    """What the functions, classes and methods of all that judges were when this was made."""

    def __init__(self) -> None:
        self._parts: list[Part] = [part for module in _judges() for part in _parts(module)]

    def broken(self) -> str:
        """Returns what is not any more what it was, in a sentence; "" if all is."""
        for owner, name, value, code in self._parts:
            if vars(owner).get(name) is not value or getattr(value, "__code__", None) is not code:
                return f"it changed {getattr(owner, '__qualname__', owner.__name__)}.{name}, by which it is judged"
        return ""


def _judges() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0].partition("_")[0] in JUDGES]


def _parts(module: ModuleType) -> Iterator[Part]:
    for name, value in list(vars(module).items()):
        if callable(value) and not name.startswith("__"):
            yield module, name, value, getattr(value, "__code__", None)
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield from (
                (value, key, part, getattr(part, "__code__", None))
                for key, part in list(vars(value).items())
                if isinstance(part, PARTS_OF_CLASSES)
            )
