"""Measures how long a lookup table takes to build, for the paper's two sizes and 1,000 backends.

.venv/bin/python tests/bench/tables.py [--runs 20]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from maglev.hashing import lookup_table, offset_and_skip, populate

BACKENDS = 1000
PAPER_MS = {65537: 1.8, 655373: 22.9}  # Maglev §5.3: table generation on the paper's machine, in C++


def median_ms(work: Callable[[], object], runs: int) -> float:
    """Returns the median time of `runs` calls, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    names = [f"10.2.{number // 250}.{number % 250}" for number in range(BACKENDS)]
    for size, paper_ms in PAPER_MS.items():
        offsets, skips = np.array([offset_and_skip(name, size) for name in names]).T
        filled = median_ms(lambda o=offsets, s=skips, m=size: populate(o, s, m), runs)
        whole = median_ms(lambda m=size: lookup_table(names, m), runs)
        print(
            f"N={BACKENDS} M={size}: {filled:.1f} ms, with hashing the names {whole:.1f} ms (the paper: {paper_ms} ms)"
        )


if __name__ == "__main__":
    main()
