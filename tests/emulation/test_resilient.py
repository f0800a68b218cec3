"""Resilient next hops beside the plain hash threshold: what share of the flows moves to another Maglev, and what of it.

The routers' kernels say by which Maglev each flow goes. Theory is exact (`maglev.ecmp`); flows fall on it at random, so
counts are held to four standard deviations of a binomial.
"""

from __future__ import annotations

import contextlib
import math

import pytest

from lab import ways
from lab.simulate import parse_steps
from lab.simulation import Cluster, Simulation
from maglev.ecmp import expected_moves
from maglev.engine.control import request

MAGLEVS = ["m1", "m2", "m3", "m4"]
FLOWS = 400
BUCKETS = 128


def buckets_of(ecmp):
    return BUCKETS if ecmp == "resilient" else None


def agrees(count, share, of):
    return abs(count - share * of) <= 4 * math.sqrt(of * share * (1 - share)) + 1


def tables(lab):
    """The lookup table of the one pool, as m2 serves it."""
    [pool] = request(lab.node("m2").control, "GET", "/tables").values()
    return pool["slots"]


def ways_after(lab, record):
    """By which Maglev every flow goes, now that all has settled."""
    lab.wait_converged()
    record.forget()
    return record.wait(FLOWS)


@contextlib.contextmanager
def opened_without_s4(lab):
    """Opens connections while an endpoint is away; yields them when it is back, and the share of the slots it moved."""
    with lab.drain("s4"):
        before = tables(lab)
        held = lab.connections(FLOWS)
    with held:
        lab.wait_converged()
        held.wait_settled()
        yield held, sum(old != new for old, new in zip(before, tables(lab), strict=True)) / len(before)


both = pytest.mark.parametrize(
    "ecmp",
    [
        pytest.param("threshold", marks=pytest.mark.topology("resilient", maglevs=4, endpoints=4, ecmp="threshold")),
        pytest.param("resilient", marks=pytest.mark.topology("resilient", maglevs=4, endpoints=4, ecmp="resilient")),
    ],
)


@both
def test_a_maglev_that_leaves_and_returns_moves_as_many_flows_as_theory_says(lab, ecmp):
    with lab.connections(FLOWS) as held, lab.ways() as record:
        before = record.wait(FLOWS)
        assert {len(maglevs) for maglevs in before.values()} == {1}, "no flow should have wandered by itself"
        with lab.kill("m1"):
            without = ways_after(lab, record)
        after = ways_after(lab, record)
        left, joined = ways.moved(before, without), ways.moved(without, after)
        for moved, one, other in ((left, MAGLEVS, MAGLEVS[1:]), (joined, MAGLEVS[1:], MAGLEVS)):
            share = float(expected_moves(one, other, buckets_of(ecmp)))
            assert agrees(moved, share, FLOWS), f"expected {share:.3f} of {FLOWS} flows to move, {moved} did"
        held.wait_settled()
        assert held.broken == 0, held.report()
    if ecmp == "resilient":
        elsewhere = sum(before[flow] != {"m1"} and before[flow] != without[flow] for flow in before)
        assert elsewhere == 0, f"{elsewhere} flows moved from Maglevs that had stayed"


@both
def test_of_the_flows_that_move_those_break_whose_slots_have_changed(lab, ecmp):
    """An endpoint joins while they live: the connection table keeps all of them, but goes with its Maglev."""
    with opened_without_s4(lab) as (held, changed):
        assert held.broken == 0, f"the connection table should have kept all of them\n{held.report()}"
        with lab.kill("m1"):
            lab.wait_converged()
            held.wait_settled()
            broken = held.broken
    share = float(expected_moves(MAGLEVS, MAGLEVS[1:], buckets_of(ecmp))) * changed
    assert agrees(broken, share, FLOWS), f"expected {share:.3f} of {FLOWS} connections to break, {broken} did"
    simulation = Simulation(Cluster(4, 4, 200_000, ecmp=ecmp, without=("s4",)))
    simulated = [simulation.apply(step) for step in parse_steps(["add s4", "kill m1"])][-1].broken / 200_000
    assert agrees(broken, simulated, FLOWS), f"{simulated:.3f} broke in the simulation, {broken} of {FLOWS} here"


@pytest.mark.topology("resilient", maglevs=4, endpoints=4, connection_table=False)
def test_without_a_connection_table_they_break_wherever_they_go(lab):
    with opened_without_s4(lab) as (held, changed):
        assert agrees(held.broken, changed, FLOWS), f"expected {changed:.3f} of {FLOWS} to break, {held.broken} did"
