"""What pydantic refuses, in words: where it stands in the document, what was found, what is allowed there.

What is allowed is the field's `description`, or the text of a validator's own ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from maglev.errors import Problem

LONGEST_SHOWN = 80  # characters of a refused value that an error message repeats
Inner = Mapping[str, type[BaseModel]]  # a field's name: the objects that stand in it


def problems_of(model: type[BaseModel], error: ValidationError, inner: Inner, file: str, path: str) -> list[Problem]:
    """Returns what was wrong with a value for `model`; `path` is where in the document it stands."""
    return [_problem(model, each, inner, file, path) for each in error.errors(include_url=False)]


def _problem(model: type[BaseModel], error: Any, inner: Inner, file: str, path: str) -> Problem:
    allowed = ""
    for part in error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        if part in model.model_fields:
            allowed = model.model_fields[part].description or ""
            model = inner.get(part, model)
    match error["type"]:
        case "missing":
            return Problem(file, path, None, f"{allowed} (this field is required)")
        case "extra_forbidden":
            allowed = f"only the keys {', '.join(model.model_fields)}"
        case "model_type" | "model_attributes_type":
            allowed = keys_of(model)
        case "value_error":
            allowed = str(error["ctx"]["error"])
    return Problem(file, path, shown(error["input"]), allowed)


def keys_of(model: type[BaseModel]) -> str:
    """Returns what is allowed where an object of `model` stands."""
    return f"a mapping with the keys {', '.join(model.model_fields)}"


def shown(value: object) -> object:
    """Returns what a message shows of a value: all of a small one, the kind of a large one."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return value[:LONGEST_SHOWN] + "…"
    return value
