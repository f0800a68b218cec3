"""How `maglab bench scale` decides: which sizes, when not to begin one, and when to give one up; processes are real."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from rich.console import Console

from lab.bench import scale
from lab.bench.request import Request
from lab.bench.scale import Broken, Size, too_much
from lab.errors import WrongUse

GB = 10**9
ROW = {"nodes": 24, "memory_bytes": 1 * GB, "taken_bytes": 2 * GB, "total_s": 10.0}
PLENTY = 1000 * GB


@pytest.fixture
def process():
    """Returns a function that runs a few lines of Python as a size's process."""
    running = []

    def run(text):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        running.append(subprocess.Popen([sys.executable, "-uc", text], text=True, **pipes))
        return running[-1]

    yield run
    for each in running:
        with each:
            each.kill()


def later(s=30.0):
    return time.monotonic() + s


def test_a_size_counts_all_its_nodes():
    assert Size(2).options == {"maglevs": 8, "endpoints": 32, "clients": 4, "routers": 2}
    assert Size(2).nodes == 8 + 32 + 4 + 2 + 1
    assert str(Size(1)) == "24 nodes (1 rack, 4 Maglevs, 16 endpoints, 2 clients)"
    assert list(scale.RACKS) == sorted(set(scale.RACKS))


def test_what_may_take_more_memory_than_is_left_is_not_begun(monkeypatch):
    monkeypatch.setattr(scale, "kept_free_bytes", lambda: GB)
    expected = scale.GROWS_FASTER * 47 / 24 * 2 * GB  # the kernel's part counts as well
    assert too_much(Size(2), [ROW], int(expected + GB) + 1, 1000) is None
    assert "it may take 5,092 MB" in too_much(Size(2), [ROW], int(expected + GB) - 1, 1000).why


def test_what_may_take_more_time_than_is_left_is_not_begun():
    assert too_much(Size(2), [ROW], PLENTY, 26) is None
    assert "it may take 25 s, and 25 s are left" in too_much(Size(2), [ROW], PLENTY, 25).why
    assert too_much(Size(1), [], PLENTY, 0) is not None
    assert too_much(Size(1), [], 0, 1) is None, "the first is always tried: nothing is known yet"


def test_a_bench_of_which_no_size_came_up_says_so():
    document = scale.document_of([], Size(1), Broken("no terminals", "wiring"))
    assert document["largest"] == 0
    assert document["said"] == [
        "the largest lab that came up, converged and served: none",
        "the next, 24 nodes (1 rack, 4 Maglevs, 16 endpoints, 2 clients): no terminals, while wiring",
    ]


def test_the_last_line_is_what_was_measured(process):
    said = """print('{"stage": "wiring"}'); print('{"nodes": 3}')"""
    assert scale.watched(process(said), later()) == {"nodes": 3}


def test_lines_may_come_in_pieces(process):
    said = """import os, time
for part in (b'{"sta', b'ge": "wiring"}\\n{"no', b'des": 3}\\n'):
    os.write(1, part)
    time.sleep(0.05)"""
    assert scale.watched(process(said), later()) == {"nodes": 3}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            """print('{"stage": "wiring"}'); print('{"error": "no more terminals"}')""",
            "no more terminals, while wiring",
        ),
        (
            """import sys; print('{"stage": "wiring"}'); print('x\\nMemoryError', file=sys.stderr); sys.exit(7)""",
            "its process ended with status 7 and said: MemoryError, while wiring",
        ),
        ("pass", "its process ended with status 0 and said: nothing, while beginning"),
    ],
)
def test_what_breaks_is_told_with_what_was_being_done(process, text, why):
    assert str(scale.watched(process(text), later())) == why


def test_what_takes_too_long_is_given_up(process):
    began = time.monotonic()
    found = scale.watched(process("import time; time.sleep(60)"), began + 0.5)
    assert found == Broken("it takes too long", "beginning")
    assert time.monotonic() - began < 10


def test_it_is_given_up_while_there_is_memory(process, monkeypatch):
    left = iter([10 * GB, 5 * GB, GB - 1])
    monkeypatch.setattr(scale, "available_bytes", lambda: next(left))
    monkeypatch.setattr(scale, "kept_free_bytes", lambda: GB)
    assert scale.watched(process("import time; time.sleep(60)"), later()).why == "memory runs out"


def test_a_process_that_does_not_heed_is_killed(process, monkeypatch):
    monkeypatch.setattr(scale, "FAREWELL_S", 0.3)
    text = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); time.sleep(60)"
    deaf = process(text)
    assert deaf.stdout.readline() == "1\n"
    scale.end(deaf)
    assert deaf.returncode == -9


def test_memory_is_what_this_machine_has():
    assert 0 < scale.available_bytes() < scale.kept_free_bytes() / scale.KEPT_FREE
    assert scale.kept_free_bytes() >= scale.KEPT_FREE_BYTES


@pytest.mark.parametrize("asked", [Request(runs=3), Request(engines=("xdp",)), Request(seconds=0.0)])
def test_what_it_cannot_do_is_refused(asked):
    with pytest.raises(WrongUse, match="allowed"):
        scale.run(asked, Console())
