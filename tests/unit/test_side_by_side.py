"""Criteria are judged two at a time: results in order, and Ctrl-C ends all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lab.classroom import side_by_side
from lab.classroom.exercise import ROOT
from lab.classroom.side_by_side import Running, in_order

DEADLINE_S = 20.0
SECONDS = f"60.{os.getpid()}"  # by which this test knows its own processes


@pytest.fixture
def two_cores(monkeypatch):
    """Two processors, whatever this machine has."""
    monkeypatch.setattr(side_by_side, "cores", lambda: 2)


def test_two_run_at_once_and_their_results_come_in_order(two_cores):
    first_may_end = threading.Event()

    def first():
        assert first_may_end.wait(DEADLINE_S), "the second runs while the first does"
        return 1

    def second():
        first_may_end.set()
        return 2

    assert list(in_order([first, second, lambda: 3], Running())) == [1, 2, 3]


def test_with_one_processor_one_runs_at_a_time(monkeypatch):
    monkeypatch.setattr(side_by_side, "cores", lambda: 1)
    busy = threading.Lock()

    def thing():
        assert busy.acquire(blocking=False)
        time.sleep(0)
        busy.release()

    list(in_order([thing] * 20, Running()))


def test_who_waits_is_told_for_what(monkeypatch, two_cores):
    monkeypatch.setattr(side_by_side, "LOOK_EVERY_S", 0.001)
    told, go_on = [], threading.Event()

    def waiting(which, seconds):
        told.append(which)
        go_on.set()

    list(in_order([lambda: 1, lambda: go_on.wait(DEADLINE_S)], Running(), waiting))
    assert set(told) == {1}


def test_what_goes_wrong_ends_what_runs_and_what_waits_does_not_begin(two_cores):
    running, ended, begun = Running(), threading.Event(), []

    def wrong():
        raise ValueError("no idea")

    def endless():
        running.add(ended.set)
        assert ended.wait(DEADLINE_S)

    with pytest.raises(ValueError, match="no idea"):
        list(in_order([wrong, endless, endless, lambda: begun.append(1)], running))
    assert not begun
    late = threading.Event()
    running.add(late.set)
    assert late.is_set(), "what begins too late ends at once"


CHECK = '''
import subprocess, time
from lab.classroom import criterion

REFERENCE = "maglev.primes"

def endless(student, case):
    """It never ends."""
    subprocess.Popen(["sleep", "{seconds}"])
    time.sleep(60)

one = criterion(step=1, hint="wait", seconds=600)(endless)
'''
JUDGE = """
import sys
from pathlib import Path
from lab.classroom.exercise import Exercise
from lab.classroom.judge import check
check(Exercise(Path(sys.argv[1])), None, "reference", 1)
"""


def test_ctrl_c_ends_all_that_judges(tmp_path):
    directory = tmp_path / "01_endless"
    directory.mkdir()
    (directory / "check.py").write_text(CHECK.format(seconds=SECONDS))
    (tmp_path / "points.csv").write_text("exercise,criterion,points\n")
    judging = subprocess.Popen([sys.executable, "-c", JUDGE, str(directory)], cwd=ROOT, stderr=subprocess.DEVNULL)
    _wait(lambda: _sleepers())
    judging.send_signal(signal.SIGINT)
    judging.wait(DEADLINE_S)
    _wait(lambda: not _sleepers())


def _sleepers():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found += [pid] if file.read() == f"sleep\x00{SECONDS}\x00".encode() else []
        except OSError:
            continue
    return found


def _wait(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
