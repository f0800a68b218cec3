"""The shipped scenarios: each holds, and fails without what it says saves it.

MAGLAB_SEEDS=1,2,3 runs all of them with these seeds, and each without what saves it. Otherwise those run whose subject
no other test of this directory has, and two show that they can fail.
"""

from __future__ import annotations

import os

import pytest

from lab.errors import CannotStart
from lab.script import PROTECTIONS, Run, carry_out, load, shipped

SMALLER = {  # than a person would run it
    "chaos": {"faults": 5, "seconds": 15.0, "connections": 120},
    "crash": {"connections": 200},
    "ecmp_resize": {"connections": 200},
    "flapping_endpoint": {"times": 2},
    "rolling_upgrade": {"connections": 100},
}
EVERYTHING = "MAGLAB_SEEDS" in os.environ
HELD = ("both_at_once", "crash", "flapping_endpoint", "slow_drain", "split_config", "syn_flood")
FAILING = ("both_at_once", "crash")  # without connection table, and without Maglev hashing
SEEDS = [int(seed) for seed in os.environ.get("MAGLAB_SEEDS", "1").split(",")]


def outcome(name, seed, without=()):
    """What a scenario comes to."""
    script = load(name)
    try:
        return carry_out(script, Run(seed, without, say=lambda text: None), {**script.options, **SMALLER.get(name, {})})
    except CannotStart as error:
        pytest.skip(str(error))


def test_there_are_a_dozen():
    assert len(shipped()) == 12
    assert {load(name).protection for name in shipped()} <= set(PROTECTIONS)
    assert all(load(name).summary.endswith(".") for name in shipped()), "a sentence each"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", shipped() if EVERYTHING else HELD)
def test_it_holds(name, seed):
    found = outcome(name, seed)
    assert found.ok, "\n".join(map(str, found.verdicts))


@pytest.mark.parametrize("name", shipped() if EVERYTHING else FAILING)
def test_it_fails_without_what_saves_it(name):
    found = outcome(name, SEEDS[0], [load(name).protection])
    assert not found.ok, f"without {load(name).protection} nothing went wrong"
    assert all(verdict.expected and verdict.actual for verdict in found.verdicts if not verdict)
