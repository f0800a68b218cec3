"""The option `--json FILE` of commands that produce results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from .errors import WrongUse

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result to a file as JSON.")]


def check_writable(path: Path | None, option: str = "--json") -> None:
    """Raises WrongUse for a file that cannot be written, before anything has been done for it."""
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise WrongUse(f"{option} {path}: cannot write there; name a file in a directory that exists")


def write_json(path: Path | None, document: object) -> None:
    """Writes a result, if it was asked for."""
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
