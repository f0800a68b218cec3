"""The fast path decides as the reference does: a hundred thousand frames, once more with every access checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maglev import flow
from maglev.errors import Reason
from maglev.fast.flow import key_of, selection_hash
from maglev.forwarding import Forwarder

ROOT = Path(__file__).parents[2]
FUZZER = ROOT / "tests" / "fuzz" / "fast_path.py"


FRAMES = 100_000
FEWEST = 25  # times that each fate must have been met among them
NEVER_DECIDED = {Reason.SEND_FAILED, Reason.OVERLOAD}  # they become of frames after the decision
EVERY_FATE = {str(reason) for reason in Reason if reason not in NEVER_DECIDED | {Reason.HELLO}} | {
    "forwarded a packet",
    "forwarded a packet, cut",
    "forwarded a fragment",
    "forwarded a fragment, cut",
    "forwarded a fragment, and those held",
    "forwarded from a Maglev",
    "forwarded from a Maglev, and those held",
    "forwarded an error",
    "forwarded an error, cut",
    "redirected",
    "too_big, answered",
    "hello, answered",
    "named by its connection ID",
    "over its source's share",
    "traced, and forwarded",
    "traced, and redirected",
    "traced, and dropped",
}
COMBINED = {"forwarded from a Maglev, cut"}  # may be met


def fuzz(frames, **environment):
    """Runs the fuzzer in a process of its own; returns what it says."""
    command = [sys.executable, str(FUZZER), "--frames", str(frames)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}
    )
    assert done.returncode == 0, f"the fuzzer should have found nothing, but: {done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.parametrize("checked", ["0", "1"], ids=["as it runs", "bounds checked"])
def test_a_hundred_thousand_frames_are_decided_alike(checked):
    said = fuzz(FRAMES, NUMBA_BOUNDSCHECK=checked)
    assert f"{FRAMES:,} frames" in said
    assert "all decided alike" in said
    lines = [line.split(maxsplit=1) for line in said.splitlines()[:-1]]
    fates = {fate: int(count.replace(",", "")) for count, fate in lines}
    assert fates["forwarded a packet"] > FRAMES // 4, f"a quarter should be forwarded, or this shows little: {fates}"
    rare = {fate: fates.get(fate, 0) for fate in EVERY_FATE if fates.get(fate, 0) < FEWEST}
    assert not rare, f"each fate should have been met at least {FEWEST} times, but not these: {rare}"
    unknown = fates.keys() - EVERY_FATE - {"handed over"}
    assert unknown <= COMBINED, f"fates that nobody looks for: {unknown}"


def test_the_fuzzer_finds_a_difference(monkeypatch):
    """A reference that keeps a SYN on an old connection's backend must be found out within a few histories."""
    monkeypatch.syspath_prepend(str(FUZZER.parent))
    import fast_path

    def choose(self, found, selects, *more, **options):
        return usual(self, found, False, *more, **options)

    usual = Forwarder.choose
    monkeypatch.setattr(fast_path.Forwarder, "choose", choose)
    with pytest.raises(AssertionError, match="should have been Decision"):
        [fast_path.history(seed) for seed in range(1, 21)]


@pytest.mark.parametrize("size", [0, 30, 41])
def test_a_word_outside_of_its_array_is_found(size):
    """So that a silent fuzzer means something: with checking on, reading beyond the end raises."""
    program = f"""
import numpy as np
from maglev.compiled import fast
from maglev.fast.words import word32
@fast
def read(memory, at):
    return word32(memory, at)
try:
    read(np.zeros({size}, np.uint8), {size} - 3)
except IndexError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": "/dev/null"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "a word lies outside of its array\n", done.stdout + done.stderr


addresses = st.binary(min_size=16, max_size=16)
numbers = st.integers(0, 65535)


@given(addresses, addresses, st.integers(0, 255), numbers, numbers)
@settings(max_examples=500)
def test_both_hash_a_flow_to_the_same_slot(source, destination, protocol, source_port, destination_port):
    subject = flow.Flow(source, destination, protocol, source_port, destination_port)
    assert selection_hash(key_of(subject)) == flow.selection_hash(subject)
