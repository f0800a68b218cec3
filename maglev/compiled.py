"""How this package compiles its inner loops: with Numba, once a machine, kept on disk for the next process.

`NUMBA_DISABLE_JIT=1` runs the same loops as plain Python, for a debugger; `NUMBA_BOUNDSCHECK=1` compiles them with
every access to an array checked, for a fuzzer.

Numba keeps a function's machine code until the file that the function stands in changes. It does not look at the
files of those that the function calls, so the code is kept in a directory named after all sources that it is made of.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numba import njit
from numba.core import config

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

PACKAGE = Path(__file__).parent
KEPT = PACKAGE / "__pycache__"
SOURCES = (  # what is compiled, and where it has its constants from
    "fast/*.py", "engine/af_xdp.py", "engine/machine_code.py", "engine/packet_thread.py", "engine/ring.py",
    "engine/xdp.py", "baselines.py", "compiled.py", "conntrack.py", "errors.py", "flow.py", "gre.py", "hashing.py",
    "packets.py",
)  # fmt: skip
CHECKED = bool(config.BOUNDSCHECK)  # whether to look before every access

signed: Any = np.int64  # how compiled code makes a signed number; to a type checker it is an integer like others


def fingerprint() -> str:
    """Returns what the machine code depends on, besides the processor: its sources, and whether it checks."""
    digest = blake2b(bytes([CHECKED]), digest_size=8)
    for path in sorted(path for pattern in SOURCES for path in PACKAGE.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def keep_machine_code() -> None:
    """Has Numba keep its machine code in a directory of this version's own, unless the user has named another."""
    if not config.CACHE_DIR:
        config.CACHE_DIR = str(KEPT / f"compiled-{fingerprint()}")


def forget_other_versions() -> None:
    """Removes machine code of other versions of the sources: for set-up, not while forwarders run."""
    for directory in KEPT.glob("compiled-*"):
        if str(directory) != config.CACHE_DIR:
            shutil.rmtree(directory, ignore_errors=True)


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
