"""A student's code carries the traffic: what it decides is what clients see, on every Maglev."""

from __future__ import annotations

import textwrap

import pytest

from lab import Lab
from lab.classroom.exercise import find
from lab.errors import NotInTime

STUBBORN = """
    import maglev.forwarding
    from maglev.conntrack import ConnectionTable as Given
    from maglev.flow import pack_address

    class ConnectionTable(Given):
        def record(self, flow, backend, now):
            return False

    class Forwarder(maglev.forwarding.Forwarder):
        def choose(self, flow, selects, service, now, continues=False):
            self.connections.record(flow, b"", now)
            return pack_address("10.2.2.2")
"""

MUTE = """
    import maglev.fragments

    class FragmentTable(maglev.fragments.FragmentTable):
        def expired(self, now):
            raise NotImplementedError("step 3: count them")
"""


def test_one_file_that_stands_for_two_modules_decides_on_every_packet(tmp_path):
    """This one sends all to s2, and records nothing: by hash, 40 connections would hit all of three endpoints."""
    solution = tmp_path / "solution.py"
    solution.write_text(textwrap.dedent(STUBBORN))
    student = find("6").check().student(solution)
    with Lab("rack", maglevs=2, endpoints=3, student=student) as lab, lab.connections(40) as conns:
        conns.wait_settled()
        assert {each.endpoint for each in conns.all()} == {"s2"}, conns.report()
        entries = [each.statistics["connections"]["entries"] for each in lab.snapshot().maglevs.values()]
        assert entries == [0, 0], "the table is the student's as well"


def test_a_gap_that_the_forwarder_meets_when_it_is_asked_is_told(tmp_path):
    """It runs on without an answer: what keeps it from one stands in its log alone."""
    solution = tmp_path / "solution.py"
    solution.write_text(textwrap.dedent(MUTE))
    student = find("10").check().student(solution)
    gap = "m1's forwarder is not ready: NotImplementedError: step 3: count them"
    with pytest.raises(NotInTime, match=gap), Lab("rack", maglevs=1, endpoints=1, student=student):
        pass
