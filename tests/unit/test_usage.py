"""Processor time and memory by node: what /proc says, and what is left of those who died."""

from __future__ import annotations

import os
import time

import pytest

from lab import usage
from lab.usage import TICKS_PER_S, Meter, Process

STAT = (
    "({name}) S 1 2 3 0 -1 4194560 1 0 0 0 {user} {system} 0 0 20 0 1 0 {start} 9999 {pages} 18446744073709551615 0 0"
)


@pytest.mark.parametrize("name", ["sh", "a b", "x) R 1 1", "((("])
def test_a_process_may_be_called_anything(name: str) -> None:
    stat = "42 " + STAT.format(name=name, user=30, system=12, start=777, pages=5)
    assert usage.parse(42, stat) == Process(42, 777, 42, 5 * usage.PAGE_BYTES)


def test_own_processor_time_is_what_the_kernel_says_otherwise() -> None:
    """Whoever is in this process's namespace counts, and this process is one of them."""
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    own = next(p for p in usage.processes({"here": os.getpid()})["here"] if p.pid == os.getpid())
    assert own.cpu_ticks / TICKS_PER_S == pytest.approx(time.process_time(), abs=0.1)


def test_a_meter_counts_the_time_of_those_who_died() -> None:
    meter = Meter()
    meter.read({"m1": [Process(1, 10, 500, 0), Process(2, 20, 100, 0)], "m2": []})
    meter.read({"m1": [Process(1, 10, 600, 0), Process(2, 20, 150, 0)], "m2": []})
    after = meter.read({"m1": [Process(2, 99, 30, 7)], "m2": [Process(3, 5, 4, 0)]})  # 2 is another one by now
    assert after["m1"].cpu_s * TICKS_PER_S == pytest.approx(600 + 150 + 30)
    assert after["m2"].cpu_s * TICKS_PER_S == pytest.approx(4)
    assert (after["m1"].processes, after["m1"].memory_bytes) == (1, 7)
