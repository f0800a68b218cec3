"""Memory for large tables: a page at a time as it is written to, or all at once in huge pages.

A huge page would take 2 MB, and milliseconds to clear, when the first flow came to it, and packets would wait. Small
pages take what flows need; but with many flows a processor has to look for pages, some 30 ns a packet. Whoever has the
memory to spare takes it whole before the first packet comes.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

HUGE_PAGE_BYTES = 2 << 20
MADV_POPULATE_WRITE = 23  # linux/mman.h


def zeros_by_page(rows: int, columns: int) -> Array:
    """Returns uint64 zeros (rows, columns) that begin at a page, and take memory as they are written to."""
    return _zeros(rows, columns, mmap.MADV_NOHUGEPAGE)


def zeros_at_once(rows: int, columns: int) -> Array:
    """Returns uint64 zeros (rows, columns) that begin at a page, and have all their memory now, in huge pages."""
    return _zeros(rows, columns, mmap.MADV_HUGEPAGE, MADV_POPULATE_WRITE)


def _zeros(rows: int, columns: int, *advice: int) -> Array:
    """Takes 2 MB more than needed, so that what is returned begins where a huge page can."""
    size = rows * columns * 8
    memory = mmap.mmap(-1, size + HUGE_PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % HUGE_PAGE_BYTES
    for each in advice:
        with contextlib.suppress(OSError):  # a kernel without huge pages, or before Linux 5.14
            memory.madvise(each, start, size)
    return whole[start : start + size].view(np.uint64).reshape(rows, columns)
