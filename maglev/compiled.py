"""How this package compiles its inner loops: with Numba, once a machine, kept on disk for the next process.

`NUMBA_DISABLE_JIT=1` runs the same loops as plain Python, for a debugger; `NUMBA_BOUNDSCHECK=1` compiles them with
every access to an array checked, for a fuzzer. Where the machine code is kept says `kept`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numba import njit
from numba.core import config

from . import kept

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

CHECKED = bool(config.BOUNDSCHECK)  # whether to look before every access

signed: Any = np.int64  # how compiled code makes a signed number; to a type checker it is an integer like others


def keep_machine_code() -> None:
    """Has Numba keep its machine code in a directory of this version's own, unless the user has named another."""
    if not config.CACHE_DIR:
        config.CACHE_DIR = str(kept.for_this_user(CHECKED))


keep_machine_code()


# For code that makes no arrays of its own: without it, Numba counts who holds each array, at every call.
BORROWS = {"_nrt": False, "error_model": "numpy"}


def compiled(function: Callable[Parameters, Result], **options: Any) -> Callable[Parameters, Result]:
    """Returns `function` compiled at its first call, to machine code that runs without the interpreter lock.

    No signature is given to Numba: an eager one would be loaded at import, by processes that never call it.
    """
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # neither the source tree nor the home directory is writable: compile in every process
        return njit(nogil=True, **options)(function)


def fast(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Returns `function` compiled as `compiled` does, for packets: it makes no arrays and divides by no zero."""
    return compiled(function, **BORROWS)


def inlined(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Returns a `function` for those that are `fast` to call: it becomes part of each of them."""
    return njit(nogil=True, forceinline=True, **BORROWS)(function)
