"""Measures how long a lookup table takes to build: the paper's two sizes, its 1,000 backends, and ten times as many.

Prints medians.

.venv/bin/python tests/bench/tables.py [--runs 20]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from maglev.hashing import lookup_table, offset_and_skip, populate

# Backends, table size, and what generating the table took on the paper's machine, in C++ (Maglev §5.3)
CASES = [(1000, 65537, "1.8 ms"), (1000, 655373, "22.9 ms"), (10_000, 655373, "not measured")]


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
    for backends, size, paper in CASES:
        names = [f"10.2.{number // 250}.{number % 250}" for number in range(backends)]
        offsets, skips = np.array([offset_and_skip(name, size) for name in names]).T
        filled = median_ms(lambda o=offsets, s=skips, m=size: populate(o, s, m), runs)
        whole = median_ms(lambda n=names, m=size: lookup_table(n, m), runs)
        print(f"N={backends} M={size}: {filled:.1f} ms, with hashing the names {whole:.1f} ms (the paper: {paper})")


if __name__ == "__main__":
    main()
