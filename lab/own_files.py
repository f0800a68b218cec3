"""Python files that somebody has written: scripts, topologies, checks and solutions, run anew as modules."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from .errors import WrongUse


def load_module(path: Path, name: str) -> ModuleType:
    """Returns the module in a file, run anew; raises whatever it raises."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module


def load_own(path: Path, kind: str) -> ModuleType:
    """Returns the module in a file that somebody has named, such as a script; WrongUse, with its error, if it fails."""
    try:
        return load_module(path, f"maglab_{kind}_{path.stem}")
    except Exception as error:  # whatever somebody has written into it
        raise WrongUse(f"{path} cannot be loaded: {traceback.format_exception_only(error)[-1].strip()}") from error
