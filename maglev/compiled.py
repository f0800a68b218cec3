"""How this package compiles its inner loops: with Numba, once a machine, kept on disk for the next process.

`NUMBA_DISABLE_JIT=1` runs the same loops as plain Python, for a debugger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Returns `function` compiled at its first call, to machine code that runs without the interpreter lock.

    No signature is given to Numba: an eager one would be loaded at import, by processes that never call it.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the source tree nor the home directory is writable: compile in every process
        return njit(nogil=True)(function)
