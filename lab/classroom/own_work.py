"""Whether a solution is the student's own work: the reference is in the same checkout, for everybody to read and call.

What is to be written are the functions whose bodies raise NotImplementedError in the starter. Where a solution is
judged in this process, `guard` keeps it from having the reference's do their work; `not_written` says without running
it which it does not even define. Neither keeps anybody from copying the reference's text: that is for people to see.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

PACKAGES = ("maglev", "lab")  # where references are, and whatever else imports from them
GUARDED = "_maglab_guarded"  # in a function's dictionary


class Borrowed(BaseException):
    """A solution calls the reference's function; no `except Exception` of a student's swallows it."""


def gaps(starter: Path) -> list[str]:
    """Returns the functions that a starter leaves to be written: `populate`, or `Forwarder.decide` of a class."""
    return [name for name, function in _functions(ast.parse(starter.read_text(encoding="utf-8"))) if _is_gap(function)]


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{each.name}", each) for each in node.body if isinstance(each, ast.FunctionDef))


def _is_gap(function: ast.FunctionDef) -> bool:
    raised = [node.exc for node in ast.walk(function) if isinstance(node, ast.Raise)]
    names = [each.func if isinstance(each, ast.Call) else each for each in raised]
    return any(isinstance(each, ast.Name) and each.id == "NotImplementedError" for each in names)


def not_written(solution: Path, wanted: Iterable[str], references: Sequence[str]) -> str:
    """Returns which of the wanted functions a solution imports or inherits from the references, in a sentence, or "".

    It is not run for that. What it does not have at all is another matter, as is a file that is no Python.
    """
    try:
        tree = ast.parse(solution.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return ""
    defined = {name for node in tree.body for name in _bound_by(node)}
    methods = {method for _, _, method in (name.partition(".") for name in defined) if method}  # a base may have it
    imported = {name: module for node in tree.body for name, module in _imported_by(node, references)}
    for name in wanted:
        head, _, method = name.partition(".")
        if head not in defined and (module := imported.get(head)):
            return f"{head} is imported from {module}, which is the reference: write it yourself"
        if method and head in defined and method not in methods:
            return f"{name} is inherited, and not written"
    return ""


def _bound_by(node: ast.stmt) -> Iterator[str]:
    """Yields the names that a statement of a module defines, those within a class after the class's and a dot."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    if isinstance(node, ast.ClassDef):
        yield from (f"{node.name}.{name}" for each in node.body for name in _bound_by(each))
    for target in [*getattr(node, "targets", ()), getattr(node, "target", None)]:
        if isinstance(target, ast.Name):
            yield target.id


def _imported_by(node: ast.stmt, references: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields name and module of what a statement imports from the references, by `from … import`."""
    if isinstance(node, ast.ImportFrom) and node.module in references:
        for each in node.names:
            names = list(vars(importlib.import_module(node.module))) if each.name == "*" else [each.asname or each.name]
            yield from ((name, node.module) for name in names)


def guard(solution: Path, wanted: Sequence[str], references: Sequence[str]) -> None:
    """Has each wanted function of the references raise Borrowed when it is called from a solution's file.

    It is replaced wherever `PACKAGES` hold it by now. Other callers, the reference's own among them, notice nothing.
    """
    for reference in map(importlib.import_module, references):
        for name in wanted:
            head, _, method = name.partition(".")
            owner = getattr(reference, head, None) if method else reference
            theirs = inspect.getattr_static(owner, method or head, None)
            if isinstance(theirs, FunctionType) and not _is_guarded(theirs):
                ours = _guarded(theirs, f"{theirs.__module__}.{name}", str(solution))
                for holder in [owner] if method else _holders():
                    _replace(holder, theirs, ours)


def _holders() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in PACKAGES]


def _replace(holder: Any, theirs: object, ours: object) -> None:
    for key in [key for key, value in vars(holder).items() if value is theirs]:
        setattr(holder, key, ours)


def _guarded(function: Callable[..., Any], name: str, solution: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        caller = sys._getframe(1)
        if caller.f_code.co_filename == solution or caller.f_code.co_filename.startswith("<"):
            where = f"line {caller.f_lineno} of {Path(solution).name}"
            raise Borrowed(f"{where} calls {name}, which is the reference: write it yourself")
        return function(*arguments, **options)

    del vars(called)["__wrapped__"]  # or the function itself could be had from it
    vars(called)[GUARDED] = True
    return called


def _is_guarded(function: object) -> bool:
    return GUARDED in getattr(function, "__dict__", {})


def forbid(student: ModuleType, wanted: Iterable[str], references: Sequence[str]) -> None:
    """Has what a student's module has imported or inherited of the guarded functions raise Borrowed, whoever calls."""
    for name in wanted:
        head, _, method = name.partition(".")
        there = getattr(student, head, None)
        if _is_guarded(there) or (isinstance(there, type) and there.__module__ in references):
            origin = f"{head} is imported from {there.__module__}, which is the reference: write it yourself"
            setattr(student, head, _refusing(head, origin))
        elif method and _is_guarded(getattr(there, method, None)):
            setattr(there, method, _refusing(method, f"{name} is inherited, and not written"))


def _refusing(name: str, sentence: str) -> Callable[..., Any]:
    def refused(*arguments: Any, **options: Any) -> Any:
        raise Borrowed(sentence)

    refused.__name__ = name
    return refused
