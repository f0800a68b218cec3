"""The judge and labs: a lab that takes too long is taken away, and what a student's daemons break off with is told."""

from __future__ import annotations

import pytest
from solutions import judged

from lab import site
from lab.classroom.exercise import Exercise

CHECK = '''
import time

from lab.classroom import criterion

REFERENCE = ("maglev.conntrack", "maglev.forwarding")
SMALL = {"topology": "rack", "maglevs": 2, "endpoints": 2, "clients": 1}

@criterion(step=1, hint="let go", seconds=1, lab=SMALL)
def takes_for_ever(lab, case):
    """Nothing ever comes of it."""
    time.sleep(3600)

@criterion(step=2, hint="choose", lab=SMALL)
def carries_connections(lab, case):
    """Connections are carried."""
    with lab.connections(4) as conns:
        conns.wait_settled()
        case.expect(conns.broken, 0, "the number of connections that broke")
'''
SOLUTION = """
import maglev.forwarding

class Forwarder(maglev.forwarding.Forwarder):
    def choose(self, flow, selects, service, now, continues=False):
        raise {}
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What is said of a criterion without end, of a gap, and of a fault, in labs; and which labs nobody took away."""
    directory = tmp_path_factory.mktemp("exercises") / "01_small"
    directory.mkdir()
    (directory / "check.py").write_text(CHECK)
    (directory / "starter.py").write_text(SOLUTION.format('NotImplementedError("step 2: choose")'))
    gap, fault = directory / "gap.py", directory / "fault.py"
    gap.write_text(SOLUTION.format('NotImplementedError("step 2: choose")'))
    fault.write_text(SOLUTION.format('ValueError("no idea")'))
    before = {each.directory for each in site.sites()}
    exercise = Exercise(directory)
    slow, carries = exercise.check().criteria.values()
    told = judged(exercise, [(slow, None), (carries, gap), (carries, fault)])
    return told, {each.directory for each in site.sites() if not each.is_owned} - before


def test_a_lab_that_takes_too_long_is_taken_away(found):
    (slow, *_), left = found
    assert slow.status == "timed out"
    assert not left


def test_a_gap_that_the_first_packet_meets_is_a_gap(found):
    (_, gap, _), _ = found
    assert (gap.status, gap.message) == ("missing", "step 2: choose")


def test_what_a_daemon_broke_off_with_is_shown(found):
    (_, _, fault), _ = found
    assert fault.status == "wrong"
    assert "m1's forwarder: ValueError: no idea" in fault.output, fault
