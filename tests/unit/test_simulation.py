"""The simulation, held to theory where theory is exact, and to a naive twin that knows flows as objects."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from lab.errors import WrongUse
from lab.simulate import clusters, parse_steps, parse_sweep, simulate_all
from lab.simulation import Change, Cluster, Simulation, churn, run
from maglev.ecmp import threshold

FLOWS = 20_000
SMALL = Cluster(maglevs=3, endpoints=5, flows=FLOWS, table_size=1009)


def after(cluster, *steps):
    """What each step did."""
    simulation = Simulation(cluster)
    return [simulation.apply(step) for step in parse_steps(steps)]


def near(count, share, of=FLOWS):
    """Says whether a count is within four standard deviations of a binomial."""
    return abs(count - share * of) <= 4 * math.sqrt(of * share * (1 - share)) + 1


# By theory


def test_a_maglevs_death_breaks_nothing_while_all_choose_alike():
    [kill, back] = after(SMALL, "kill m2", "add m2")
    assert (kill.broken, kill.doomed, back.broken) == (0, 0, 0)
    assert near(kill.moved, 1 / 3)
    assert kill.expected_moved == pytest.approx(FLOWS / 3)


@pytest.mark.parametrize(("ecmp", "share"), [("threshold", 1 / 2), ("resilient", 1 / 3)])
def test_ecmp_moves_what_theory_says(ecmp, share):
    [kill] = after(Cluster(3, 5, FLOWS, 1009, ecmp=ecmp), "kill m1")
    assert near(kill.moved, share)
    assert kill.expected_moved == pytest.approx(share * FLOWS, rel=0.01)


def test_an_endpoints_death_dooms_its_own_and_the_table_keeps_all_others():
    [kill] = after(SMALL, "kill s2")
    assert near(kill.doomed, 1 / 5)
    assert kill.broken == 0
    assert kill.changed_slots > 0


def test_without_a_connection_table_as_many_break_as_slots_change():
    [kill] = after(Cluster(3, 5, FLOWS, 1009, capacity=0), "kill s2")
    assert near(kill.broken, kill.changed_slots)
    assert kill.broken > 0


def test_modulo_without_a_table_breaks_nearly_all():
    [kill] = after(Cluster(3, 5, FLOWS, 1009, hash="modulo", capacity=0), "kill s2")
    assert near(kill.broken, kill.changed_slots)
    assert kill.broken > 0.5 * FLOWS


def test_a_maglev_that_has_never_seen_a_flow_has_only_the_hash():
    """An endpoint has joined since they began: of those that move, as many break as slots have changed."""
    [joins, kill] = after(Cluster(3, 5, FLOWS, 1009, without=("s5",)), "add s5", "kill m1")
    assert joins.broken == 0
    assert near(kill.broken, joins.changed_slots * kill.moved / FLOWS)


def test_both_at_once_is_both():
    [both] = after(SMALL, "kill s2, kill m1")
    assert near(both.doomed, 1 / 5)
    assert near(both.broken, both.changed_slots * both.moved / FLOWS)
    assert both.broken > 0


def test_a_drained_endpoint_keeps_its_flows_and_gets_no_other():
    simulation = Simulation(SMALL)
    [drain] = [simulation.apply(step) for step in parse_steps(["drain s2"])]
    assert (drain.broken, drain.doomed) == (0, 0)
    assert near((simulation._owners == 1).sum(), 1 / 5)
    [kill] = [simulation.apply(step) for step in parse_steps(["kill s2"])]
    assert near(kill.doomed, 1 / 5)


def test_who_comes_back_has_forgotten():
    """m1 returns without its table; the flows that it had before find only the hash, which has changed since."""
    [_, _, back] = after(Cluster(2, 5, FLOWS, 1009, without=("s5",)), "kill m1", "add s5", "add m1")
    assert near(
        back.broken, back.moved / FLOWS * after(Cluster(2, 5, 1, 1009, without=("s5",)), "add s5")[0].changed_slots
    )


@pytest.mark.parametrize("capacity", [0, 1000, None])
def test_a_full_table_records_nothing_more(capacity):
    cluster = Cluster(2, 5, FLOWS, 1009, capacity=capacity)
    [kill] = after(cluster, "kill s1")
    recorded = FLOWS if capacity is None else 2 * capacity
    assert kill.unrecorded == FLOWS - recorded
    assert near(kill.broken, kill.changed_slots * (FLOWS - recorded) / FLOWS)


# By a naive twin


class Naive:
    """The same cluster with a flow an object and a table a dictionary, a step at a time."""

    def __init__(self, cluster, simulation):
        self.capacity = math.inf if cluster.capacity is None else cluster.capacity
        self.maglevs = {n: {} for n in simulation._state.maglevs}
        self.points = [int(point) / 2**32 for point in simulation._points]
        self.slots = [int(slot) for slot in simulation._slots]
        self.owners = [int(simulation._state.table[slot]) for slot in self.slots]
        self.at = [None] * len(self.slots)
        self.settle(simulation._state, set())

    def settle(self, state, gone):
        self.maglevs = {n: self.maglevs.get(n, {}) for n in state.maglevs}
        counts = {"moved": 0, "broken": 0, "doomed": 0}
        for flow, slot in enumerate(self.slots):
            maglev = threshold(self.points[flow], state.maglevs)
            counts["moved"] += self.at[flow] not in (None, maglev)
            self.at[flow] = maglev
            entry = self.maglevs[maglev].get(flow)
            chosen = entry if entry is not None and entry not in gone else int(state.table[slot])
            if chosen != self.owners[flow]:
                counts["doomed" if self.owners[flow] in gone else "broken"] += 1
                self.owners[flow] = chosen
                for table in self.maglevs.values():
                    table.pop(flow, None)
            if flow not in self.maglevs[maglev] and len(self.maglevs[maglev]) < self.capacity:
                self.maglevs[maglev][flow] = chosen
        return counts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("capacity", [0, 150, None])
def test_every_flow_fares_as_in_a_naive_twin(seed, capacity):
    cluster = Cluster(70, 6, 600, 251, capacity=capacity, seed=seed)  # 70: both words of what a flow remembers
    simulation = Simulation(cluster)
    naive = Naive(cluster, simulation)
    dice = random.Random(seed)
    changes = [change for step in churn(cluster, 30) for change in step]
    while changes:
        step = [changes.pop(0) for _ in range(min(len(changes), dice.randrange(1, 3)))]
        if len({change.whom for change in step}) < len(step):
            continue
        try:
            outcome = simulation.apply(step)
        except WrongUse:  # a change of what a change passed over before it had made
            continue
        gone = {change.number for change in step if change.what == "kill" and not change.is_maglev}
        counts = naive.settle(simulation._state, gone)
        assert counts == {"moved": outcome.moved, "broken": outcome.broken, "doomed": outcome.doomed}, step
        assert naive.owners == simulation._owners.tolist()


# What is typed


def test_a_seed_says_everything():
    one, same, other = (
        run(Cluster(9, 20, 5000, 1009, seed=seed), churn(Cluster(9, 20, seed=seed), 20)) for seed in (1, 1, 2)
    )
    assert one["outcomes"] == same["outcomes"] != other["outcomes"]


def test_churn_leaves_a_maglev_and_brings_back_who_left():
    changes = [change for step in churn(Cluster(2, 5), 200) for change in step]
    kinds = {(change.what, change.is_maglev) for change in changes}
    assert kinds == {("kill", True), ("kill", False), ("add", True), ("add", False)}
    simulation = Simulation(Cluster(2, 5, 10, 1009))
    for change in changes:
        simulation.apply([change])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kill x1", "is no change; allowed"),
        ("drain m1", "is no change"),
        ("m1", "is no change"),
        ("kill m", "is no change"),
    ],
)
def test_what_is_no_change_is_refused(text, says):
    with pytest.raises(WrongUse, match=says):
        Change.parse(text)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (["kill m9"], "m9 is not there"),
        (["add m1"], "m1 is there already"),
        (["kill m1, kill m2, kill m3"], "the last Maglev cannot be killed"),
        (["add m500"], "allowed are numbers from 1 to 128"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_changes_nothing(steps, says):
    simulation = Simulation(SMALL)
    with pytest.raises(WrongUse, match=says):
        simulation.apply(parse_steps(steps)[0])
    assert simulation._state.maglevs == [0, 1, 2]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("maglevs", 0, "a whole number from 1 to 128"),
        ("flows", 10**9, "a whole number from 1 to 100,000,000"),
        ("hash", "md5", "maglev, modulo, ring, rendezvous"),
        ("ecmp", "random", "threshold, resilient"),
        ("table_size", 10, "a prime, such as 65537"),
        ("capacity", -1, "0 \\(no connection table\\)"),
        ("without", ("s9",), "m1 to m3 and s1 to s5"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(field, value, says):
    with pytest.raises(WrongUse, match=says):
        Cluster(**{field: value})


def test_a_sweep_is_every_combination():
    sweeps = dict([parse_sweep("hash=maglev,modulo"), parse_sweep("table-size=251,1009")])
    found = [(each.hash, each.table_size) for each in clusters(SMALL, sweeps)]
    assert found == [("maglev", 251), ("maglev", 1009), ("modulo", 251), ("modulo", 1009)]


@pytest.mark.parametrize("text", ["colour=red", "hash=", "flows=many", "flows"])
def test_a_sweep_of_nothing_is_refused(text):
    with pytest.raises(WrongUse, match="--sweep"):
        parse_sweep(text)


def test_processes_find_what_one_finds():
    chosen = clusters(Cluster(3, 5, 2000, 1009), {"seed": [1, 2, 3]})
    steps = parse_steps(["kill m1", "kill s1"])
    one, many = ([each["outcomes"] for each in simulate_all(chosen, steps, 0, jobs=jobs)] for jobs in (1, 2))
    assert one == many


def test_dask_that_is_not_there_is_said():
    with pytest.raises(WrongUse, match="Dask"):
        list(simulate_all([SMALL], [], 0, dask="tcp://127.0.0.1:1"))


def test_points_fall_evenly():
    simulation = Simulation(Cluster(1, 1, 100_000))
    counts = np.bincount(simulation._points >> 28, minlength=16)
    assert ((counts - 6250) ** 2 / 6250).sum() < 45  # chi-square, 15 degrees of freedom: 1 in 10,000


def test_a_maglev_and_an_endpoint_of_the_same_number_have_nothing_to_do_with_each_other():
    [drain, kill] = after(Cluster(3, 5, FLOWS, 1009, capacity=0), "drain s3", "kill m3")
    assert near(drain.broken, 1 / 5)
    assert kill.broken == 0, "killing m3 has brought s3 back"
    [both] = after(Cluster(3, 5, FLOWS, 1009, capacity=0), "drain s3, kill m3")
    assert near(both.broken, 1 / 5)
