"""Memory that the kernel gives a page at a time, as it is written to."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def zeros_by_page(rows: int, columns: int) -> Array:
    """Returns uint64 zeros (rows, columns) that begin at a page.

    For tables that are large and hold little: huge pages would take all of their memory, and each would take
    milliseconds to clear when the first flow comes to it, while packets wait.
    """
    memory = mmap.mmap(-1, rows * columns * 8, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel that has no huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint64).reshape(rows, columns)
