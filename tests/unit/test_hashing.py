"""Maglev hashing, held to a plain transcription of the paper's pseudocode and to the properties it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maglev.hashing import (
    hashes,
    is_prime,
    lookup_table,
    name_hashes,
    name_order,
    offset_and_skip,
    permutation,
    populate,
    turns,
)

PRIMES = [n for n in range(2, 400) if all(n % divisor for divisor in range(2, n))]

properties = settings(deadline=None)  # the first example of a process may have to compile


def populate_naively(offsets, skips, table_size, weights=None):
    """The pseudocode of §3.4, step by step, with whole permutations and no shortcut.

    With weights, what §3.4 says of them: the backends' turns come with another frequency.
    """
    wishes = zip(offsets, skips, strict=True)
    lists = [[(offset + j * skip) % table_size for j in range(table_size)] for offset, skip in wishes]
    entry, following, taken = [-1] * table_size, [0] * len(lists), 0
    while True:
        for i in range(len(lists)) if weights is None else in_turn(weights, table_size):
            while entry[lists[i][following[i]]] >= 0:
                following[i] += 1
            entry[lists[i][following[i]]] = i
            taken += 1
            if taken == table_size:
                return entry


@st.composite
def wishes(draw, max_backends=12):
    """A table size, and offsets and skips of at least one backend; equal ones are likely, as is N > M."""
    table_size = draw(st.sampled_from(PRIMES))
    backends = draw(st.integers(1, max_backends))
    offsets = draw(st.lists(st.integers(0, table_size - 1), min_size=backends, max_size=backends))
    skips = draw(st.lists(st.integers(1, table_size - 1), min_size=backends, max_size=backends))
    return offsets, skips, table_size


@st.composite
def weighted_wishes(draw):
    """The same with weights, small integers; some are 0, not all."""
    offsets, skips, table_size = draw(wishes())
    weights = draw(st.lists(st.integers(0, 9), min_size=len(offsets), max_size=len(offsets)).filter(any))
    return offsets, skips, table_size, weights


names_of_backends = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=20, unique=True)


# Permutations


def test_a_permutation_in_numbers():
    """(3 + 0*4, 3 + 1*4, 3 + 2*4, …) mod 7 = 3, 7 mod 7, 11 mod 7, … = 3, 0, 4, 1, 5, 2, 6."""
    assert permutation(3, 4, 7).tolist() == [3, 0, 4, 1, 5, 2, 6]


@given(st.data())
def test_a_permutation_holds_every_slot_once_and_steps_by_its_skip(data):
    table_size = data.draw(st.sampled_from(PRIMES))
    offset, skip = data.draw(st.integers(0, table_size - 1)), data.draw(st.integers(1, table_size - 1))
    slots = permutation(offset, skip, table_size)
    assert sorted(slots) == list(range(table_size))
    assert slots[0] == offset
    assert set(np.diff(slots) % table_size) <= {skip}


def test_a_permutation_of_a_large_table_does_not_overflow():
    """j * skip reaches 655372 * 655372 = 4.3e11, more than 32 bits hold."""
    slots = permutation(1, 655372, 655373)
    assert slots[:3].tolist() == [1, 0, 655372]  # a skip of M-1 is a step back
    assert slots[-1] == 2
    assert slots.min() == 0


# Turns


def in_turn(weights, count):
    """Whose turn it is, by when each turn is due: a backend's k-th at (k - 1/2) / weight."""
    due = [
        ((k - Fraction(1, 2)) / weight, backend)
        for backend, weight in enumerate(weights)
        if weight > 0
        for k in range(1, count + 1)
    ]
    return [backend for _, backend in sorted(due)[:count]]


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        ([1, 1, 1], "0 1 2 0 1 2 0 1"),
        # B0's turns are due at 1/4, 3/4, 5/4, 7/4, ..., B1's at 1/2, 3/2, ...
        ([2, 1], "0 1 0 0 1 0 0 1"),
        ([1, 0, 1], "0 2 0 2 0 2 0 2"),
        # B0's at 1/2, 3/2, ..., B1's at 1/8, 3/8, 5/8, 7/8, 9/8, ...
        ([1, 4], "1 1 0 1 1 1 1 0"),
        # All at 1/2 and 3/2, B1 also at 1/6, 5/6, 7/6: at the same time the first in the list comes first.
        ([1, 3, 1], "1 0 1 2 1 1 0 1"),
    ],
)
def test_turns_in_numbers(weights, order):
    assert turns(np.array(weights, float), 8).tolist() == [int(backend) for backend in order.split()]


@properties
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any), st.integers(1, 150))
def test_turns_come_when_they_are_due(weights, count):
    assert turns(np.array(weights, float), count).tolist() == in_turn(weights, count)


@pytest.mark.parametrize("weights", [[], [0.0], [0.0, 0.0]])
def test_nobody_takes_a_turn_without_weight(weights):
    assert turns(np.array(weights, float), 5).tolist() == []


@pytest.mark.parametrize("unit", [5e-324, 1e-9, 1e300, 2.0**1022])
def test_turns_depend_on_the_ratio_of_weights_alone(unit):
    assert turns(np.array([3 * unit, unit, 2 * unit]), 60).tolist() == in_turn([3, 1, 2], 60)


@properties
@given(st.lists(st.integers(1, 30), min_size=2, max_size=8), st.integers(1, 30))
def test_a_weight_that_changes_leaves_the_order_of_all_others(weights, weight):
    """Also that of the heaviest, which sets the length of a round."""
    others = [
        [int(backend) for backend in turns(np.array([first, *weights[1:]], float), 200) if backend]
        for first in (weights[0], weight)
    ]
    common = min(map(len, others))
    assert others[0][:common] == others[1][:common]


# Populating


@properties
@given(wishes())
def test_the_table_is_that_of_the_papers_pseudocode(wishes):
    table = populate(*wishes)
    assert table.tolist() == populate_naively(*wishes)
    assert table.dtype == np.int32


@properties
@given(weighted_wishes())
def test_the_table_of_unequal_backends_is_that_of_the_pseudocode_with_other_turns(wishes):
    assert populate(*wishes).tolist() == populate_naively(*wishes)


@properties
@given(st.data(), st.sampled_from([2, 3, 5, 7, 11, 13]))
def test_the_table_of_more_backends_than_slots_is_that_of_the_pseudocode(data, table_size):
    """Tables so small, too, that four steps of any skip go around them."""
    pairs = st.tuples(st.integers(0, table_size - 1), st.integers(1, table_size - 1))
    wishes = data.draw(st.lists(pairs, min_size=table_size + 1, max_size=3 * table_size))
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(wishes), max_size=len(wishes)).filter(any))
    offsets, skips = zip(*wishes, strict=True)
    assert populate(offsets, skips, table_size).tolist() == populate_naively(offsets, skips, table_size)
    weighted = populate(offsets, skips, table_size, weights)
    assert weighted.tolist() == populate_naively(offsets, skips, table_size, weights)


@properties
@given(wishes())
def test_every_slot_is_taken_and_no_backend_has_two_more_than_another(wishes):
    offsets, _, table_size = wishes
    slots = np.bincount(populate(*wishes), minlength=len(offsets))
    assert slots.sum() == table_size
    assert set(slots) <= {table_size // len(offsets), -(-table_size // len(offsets))}


def test_more_backends_than_slots_get_one_each_while_there_are_any():
    """All want slot 0 first, and step by 1: turn by turn they get slots 0, 1 and 2, and for B3 and B4 none is left."""
    assert populate([0] * 5, [1] * 5, 3).tolist() == [0, 1, 2]


@properties
@given(wishes(), st.sampled_from([1, 0.1, 7, 1e-300, 1e308]))
def test_equal_weights_are_no_weights(wishes, weight):
    offsets, skips, table_size = wishes
    weighted = populate(offsets, skips, table_size, [weight] * len(offsets))
    assert weighted.tolist() == populate(offsets, skips, table_size).tolist()


@properties
@given(weighted_wishes())
def test_slots_are_as_many_as_turns(wishes):
    offsets, skips, table_size, weights = wishes
    slots = np.bincount(populate(offsets, skips, table_size, weights), minlength=len(offsets))
    due = np.bincount(in_turn(weights, table_size), minlength=len(offsets))
    assert slots.tolist() == due.tolist()


@properties
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=10))
def test_shares_are_the_weights_within_one_percent_and_a_slot(weights):
    """Ten backends at most in 10,007 slots: rounding gives or takes a slot, and what it sums to is under 1 %."""
    table_size, backends = 10007, len(weights)
    slots = np.bincount(populate(range(backends), [1] * backends, table_size, weights), minlength=backends)
    due = table_size * np.array(weights) / sum(weights)
    assert (abs(slots - due) <= 1 + due / 100).all(), (slots, due)


@properties
@given(weighted_wishes())
def test_a_backend_of_weight_0_might_as_well_be_absent(wishes):
    offsets, skips, table_size, weights = wishes
    present = [i for i, weight in enumerate(weights) if weight]
    some_offsets, some_skips, some_weights = np.array([offsets, skips, weights])[:, present]
    without = populate(some_offsets, some_skips, table_size, some_weights)
    assert populate(*wishes).tolist() == [present[i] for i in without]


@pytest.mark.parametrize(("offsets", "skips", "weights"), [([], [], None), ([], [], []), ([3, 0], [4, 2], [0, 0])])
def test_without_any_weight_every_slot_is_nobodys(offsets, skips, weights):
    table = populate(offsets, skips, 7, weights)
    assert table.tolist() == [-1] * 7
    assert table.dtype == np.int32


def test_what_is_passed_in_is_not_changed():
    offsets, skips, weights = np.array([3, 0, 3]), np.array([4, 2, 1]), np.array([1.0, 2.0, 3.0])
    populate(offsets, skips, 7, weights)
    assert (offsets.tolist(), skips.tolist(), weights.tolist()) == ([3, 0, 3], [4, 2, 1], [1, 2, 3])


# Tables by name


@properties
@given(names_of_backends, st.sampled_from(PRIMES), st.data())
def test_listing_backends_in_another_order_changes_nothing(names, table_size, data):
    weights = {name: data.draw(st.integers(0, 3)) for name in names}
    other = data.draw(st.permutations(names))
    holders = [
        [order[i] if i >= 0 else None for i in lookup_table(order, table_size, [weights[name] for name in order])]
        for order in (names, other)
    ]
    assert holders[0] == holders[1]


def hashes_naively(name):
    """Two numbers of 64 bits: the first and the last eight bytes of the digest."""
    digest = blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


@properties
@given(names_of_backends, st.sampled_from(PRIMES), st.data())
def test_a_table_by_name_is_that_of_the_names_wishes_in_sorted_order(names, table_size, data):
    weights = data.draw(st.none() | st.lists(st.integers(0, 9), min_size=len(names), max_size=len(names)).filter(any))
    ordered = sorted(names)
    pairs = [hashes_naively(name) for name in ordered]
    offsets, skips = [h1 % table_size for h1, _ in pairs], [h2 % (table_size - 1) + 1 for _, h2 in pairs]
    ordered_weights = weights and [weights[names.index(name)] for name in ordered]
    holders = [ordered[i] for i in populate_naively(offsets, skips, table_size, ordered_weights)]
    table = lookup_table(names, table_size, weights)
    assert [names[i] for i in table] == holders
    assert table.dtype == np.int32


@pytest.mark.parametrize(
    ("count", "table_size", "weights", "digest"),
    [
        (1000, 65537, None, "72c73292d23f9a66"),
        (1000, 655373, None, "dee7301b0af6b9fd"),
        (10_000, 655373, None, "96a0f7bf72743674"),
        (1000, 997, None, "f6c6033305eeb0cf"),  # more backends than slots
        (1000, 65537, np.arange(1000) % 7 / 3, "5256e675770e2c0b"),  # a seventh of weight 0; thirds are rounded
    ],
)
def test_tables_of_many_backends_stay_as_they_are(count, table_size, weights, digest):
    """Maglevs of all versions must agree on them too: digests of what the first version made."""
    names = [f"10.2.{number // 250}.{number % 250}" for number in range(count)]
    table = lookup_table(names, table_size, weights)
    assert blake2b(table.astype("<i4").tobytes(), digest_size=8).hexdigest() == digest


def test_a_table_by_name_has_65537_slots_unless_told_otherwise():
    assert np.bincount(lookup_table(["s1", "s2"])).tolist() == [32769, 32768]


def test_a_weight_stays_with_its_name():
    """Out of sorted order; the weights 3:0:1 share 101 slots as 76:0:25 (75.75, 0, 25.25)."""
    assert np.bincount(lookup_table(["s3", "s1", "s2"], 101, [3, 0, 1])).tolist() == [76, 0, 25]


@pytest.mark.parametrize(("names", "weights"), [([], None), ([], []), (["s1", "s2"], [0, 0])])
def test_a_table_by_name_without_any_weight_is_nobodys(names, weights):
    assert lookup_table(names, 7, weights).tolist() == [-1] * 7


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "1"},  # Python's own hash differs from process to process
        {"PYTHONHASHSEED": "2"},
        {"NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "error::RuntimeWarning"},  # plain Python, and nothing to warn of
    ],
)
def test_another_process_makes_the_same_table(environment):
    code = "from maglev.hashing import lookup_table; print(lookup_table(['s1', 's2', 's3'], 31, [3, 1, 2]).tolist())"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert said == f"{lookup_table(['s1', 's2', 's3'], 31, [3, 1, 2]).tolist()}\n"


# Hashes of names


def test_hashes_of_a_name_in_numbers():
    """As `printf 10.2.1.2 | b2sum -l 128` prints it, halved. Maglevs of all versions must agree on it."""
    assert name_hashes("10.2.1.2") == (0x22D83EA2EE1579A2, 0x5BF1269D5F20C7EA)


@given(st.lists(st.text(max_size=6)))
def test_hashes_of_many_names_are_those_of_each(names):
    assert [tuple(pair) for pair in hashes(names).tolist()] == [hashes_naively(name) for name in names]
    assert [name_hashes(name) for name in names] == [hashes_naively(name) for name in names]


def test_offset_and_skip_are_the_two_hashes_cut_to_size():
    h1, h2 = name_hashes("s1")
    assert offset_and_skip("s1", 7) == (h1 % 7, h2 % 6 + 1)
    assert offset_and_skip("s1", 2) in {(0, 1), (1, 1)}


def test_offsets_and_skips_of_like_names_are_spread_and_independent():
    """6,000 addresses over the 7 * 6 = 42 pairs: 143 expected for each, sd sqrt(143 * 41/42) = 11.8; allowed: 5 sd."""
    pairs = [offset_and_skip(f"10.2.{i // 250}.{i % 250}", 7) for i in range(6000)]
    seen = [pairs.count((offset, skip)) for offset in range(7) for skip in range(1, 7)]
    assert sum(seen) == 6000
    assert min(seen) > 143 - 59
    assert max(seen) < 143 + 59


def test_names_are_sorted_by_code_point():
    assert name_order(["s2", "s10", "S3", "é"]).tolist() == [2, 1, 0, 3]


# What is refused


def test_primes():
    assert [n for n in range(-3, 400) if is_prime(n)] == PRIMES
    assert is_prime(65537)
    assert is_prime(655373)
    assert not is_prime(65537 * 65537)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("table_size", [-7, 0, 1, 4, 65536, 2**61 - 1])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: permutation(0, 1, size),
        lambda size: populate([0], [1], size),
        lambda size: populate([], [], size),
        lambda size: lookup_table(["s1"], size),
        lambda size: lookup_table([], size),
    ],
)
def test_a_size_that_is_no_prime_or_too_large_is_refused(make, table_size):
    with pytest.raises(ValueError, match=rf"^table_size is {table_size}; allowed: a prime up to 2147483647"):
        make(table_size)


@pytest.mark.parametrize(
    ("offsets", "skips", "message"),
    [
        ([0, 7], [1, 1], "offset of backend 1 is 7; allowed: 0 to 6"),
        ([-1], [1], "offset of backend 0 is -1; allowed: 0 to 6"),
        ([0, 0, 0], [1, 2, 0], "skip of backend 2 is 0; allowed: 1 to 6"),
        ([0], [7], "skip of backend 0 is 7; allowed: 1 to 6"),
        (np.array([2**64 - 1], np.uint64), [1], "offset of backend 0 is 18446744073709551615; allowed: 0 to 6"),
        ([0, 1], [1], "there are 2 offsets and 1 skips; allowed: one of each a backend"),
        ([0.5], [1], "offsets have shape (1,) and type float64; allowed: one integer a backend"),
        ([0], [[1]], "skips have shape (1, 1) and type int64; allowed: one integer a backend"),
        ([0], ["1"], "skips have shape (1,) and type <U1; allowed: one integer a backend"),
    ],
)
def test_bad_offsets_and_skips_are_refused(offsets, skips, message):
    with pytest.raises(ValueError, match="allowed") as refusal:
        populate(offsets, skips, 7)
    assert str(refusal.value) == message


@pytest.mark.parametrize(("offset", "skip"), [(7, 1), (-1, 1), (0, 0), (0, 7), (0.5, 1)])
def test_a_permutation_that_would_not_be_one_is_refused(offset, skip):
    with pytest.raises(ValueError, match=r"allowed: (0 to 6|1 to 6|one integer)"):
        permutation(offset, skip, 7)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1], "weight of backend 1 is -1.0; allowed: a finite number, 0 or above"),
        ([NAN, 1], "weight of backend 0 is nan; allowed: a finite number, 0 or above"),
        ([1, INF], "weight of backend 1 is inf; allowed: a finite number, 0 or above"),
        ([1], "weights have shape (1,); allowed: one for each of the 2 backends"),
        ([1, 1, 1], "weights have shape (3,); allowed: one for each of the 2 backends"),
        (1, "weights have shape (); allowed: one for each of the 2 backends"),
    ],
)
@pytest.mark.parametrize(
    "make", [lambda weights: populate([0, 1], [1, 1], 7, weights), lambda weights: lookup_table(["b", "a"], 7, weights)]
)
def test_bad_weights_are_refused(make, weights, message):
    with pytest.raises(ValueError, match="allowed") as refusal:
        make(weights)
    assert str(refusal.value) == message


def test_a_name_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match=r"^the name 's2' occurs twice; allowed: every backend once$"):
        lookup_table(["s2", "s1", "s2"], 7)
