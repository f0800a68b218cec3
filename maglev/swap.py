"""Puts a student's functions in the place of those that are there: for a lab in which their code carries the traffic.

    MAGLEV_STUDENT='maglev.hashing=/home/ada/work/03_hashing/solution.py' python -m maglev forwarder …

A student's file has the signatures of the module that it stands for, or of several. Every public function or class
that both have is exchanged, wherever its package holds it: `maglev`, or `lab` in a router's controller. Compiled code
is not: such a forwarder decides by the reference.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import MaglevError

VARIABLE = "MAGLEV_STUDENT"  # MODULE=FILE, several parted by a colon


def swap_in_from_environment(package: str = "maglev") -> list[str]:
    """Puts in what the environment says of a package's modules; returns the names of what was exchanged.

    What it says of another package's is left to those who run that. MaglevError for a file that cannot be used.
    """
    exchanged: list[str] = []
    for entry in filter(None, os.environ.get(VARIABLE, "").split(":")):
        module, found, file = entry.partition("=")
        if not found:
            raise MaglevError(f"{VARIABLE} is {entry!r}; allowed: MODULE=FILE, such as maglev.hashing=solution.py")
        if _package(module) == package:
            exchanged += swap_in(module, Path(file))
    return exchanged


def swap_in(name: str, file: Path) -> list[str]:
    """Puts a file's functions and classes in the place of a module's; returns the names of what was exchanged."""
    original = importlib.import_module(name)
    student = _loaded(file)
    theirs = dict(_own(student))
    exchanged = {key: value for key, value in _own(original) if key in theirs}
    pairs = [(value, theirs[key]) for key, value in exchanged.items()]
    ours = [module for key, module in list(sys.modules.items()) if _package(key) == _package(name)]
    for module in ours:
        for key, value in [(key, value) for key, value in vars(module).items() if not key.startswith("__")]:
            setattr(module, key, _exchanged(value, pairs))
    return sorted(exchanged)


def _package(name: str) -> str:
    return name.partition(".")[0]


def _own(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yields the public functions and classes that a module defines itself, by name."""
    for name, value in vars(module).items():
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__:
            yield name, value


def _exchanged(value: Any, pairs: Sequence[tuple[Any, Any]]) -> Any:
    """Returns what stands in the place of a module's value: the student's, or the same; so in dictionaries."""
    if type(value) is dict:
        for key, inner in list(value.items()):
            value[key] = next((theirs for ours, theirs in pairs if inner is ours), inner)
        return value
    return next((theirs for ours, theirs in pairs if value is ours), value)


@cache
def _loaded(file: Path) -> ModuleType:
    """Returns the module in a file; the same for all modules that it stands for, since its parts know each other."""
    module_name = f"student_{file.parent.name}_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise MaglevError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a student's code may raise anything
        why = "".join(traceback.format_exception_only(error)).strip().rpartition("\n")[2]
        raise MaglevError(f"{file} cannot be loaded: {why}") from error
    return module
