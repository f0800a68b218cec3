"""Chaos under connections: whoever breaks had to, and the report says why."""

from __future__ import annotations

import time

import pytest

from lab.faults.theory import spells
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=5)

CONNECTIONS, FAULTS, SECONDS, SEED = 100, 6, 18.0, 4
TIMEOUT_S = 60.0


def test_chaos_breaks_only_connections_that_had_to_and_says_why(lab):
    with lab.connections(CONNECTIONS) as conns:
        began_s = lab.timeline.now_s
        with lab.chaos(FAULTS, SECONDS, SEED) as storm:
            storm.wait(TIMEOUT_S)
        lab.wait_converged()
        conns.wait_settled()
        verdict = lab.explain(conns.all())
    print(lab.timeline, verdict, *verdict.evidence, sep="\n")
    assert verdict, str(verdict)
    happened = [spell for spell in spells(lab.timeline) if spell.begin_s >= began_s]
    assert len(happened) == FAULTS
    assert all(spell.end_s < float("inf") for spell in happened)
    assert lab.faults == ()


def test_for_each_connection_that_breaks_another_is_opened_with_somebody_who_lives(lab):
    count = 60
    with lab.connections(count, replaces=True) as conns:
        killed_at = time.monotonic()
        with lab.kill("s5"):
            wait_until(
                lambda: "" if _living(conns) == count else f"{_living(conns)} live", TIMEOUT_S, "all living again"
            )
            seen = conns.all()
        lost = [each for each in seen if each.is_broken]
        assert lost, "some of 60 should have been with s5"
        assert {each.endpoint for each in lost} <= {"s5", ""}, "only who was with s5, or came to it in vain, breaks"
        fresh = [each for each in seen if each.opened_at > killed_at and not each.is_broken]
        assert len(seen) == count + len(lost)
        assert len(fresh) == sum(each.endpoint == "s5" for each in lost)
        assert "s5" not in {each.endpoint for each in fresh}
        verdict = lab.explain(conns.all())
    assert verdict, str(verdict)


def _living(conns):
    return sum(each.fate == "alive" for each in conns.all())


def test_theory_that_is_not_told_of_a_fault_finds_who_broke_without_a_reason(lab):
    """The same judgement, on a lab in which an endpoint dies behind the timeline's back."""
    with lab.connections(40) as conns:
        node = lab.node("s1")
        node.stop_daemons()
        node.start_daemons()
        conns.wait_settled()
        verdict = lab.explain(conns.all())
    assert not verdict
    assert all("no reason" in line and "s1" in line for line in verdict.evidence)
