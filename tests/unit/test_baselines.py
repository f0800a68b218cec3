"""All schemes keep one contract; and each of modulo, ring and rendezvous is held to a plain one of its own kind."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maglev.baselines import TABLES, bounded_table, modulo_table, rendezvous_table, ring_table
from maglev.comparison import disruption, table_without
from maglev.hashing import lookup_table, name_hashes

SCHEMES = {**TABLES, "bounded": bounded_table}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
properties = settings(deadline=None)  # the first example of a process may have to compile
names_of_backends = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12, unique=True)
primes = st.sampled_from([2, 7, 53, 199])


def backends(count):
    return [f"10.2.{i // 250}.{i % 250}" for i in range(count)]


def holders(scheme, names, table_size, weights=None):
    """The name in each slot, or None."""
    return [names[i] if i >= 0 else None for i in scheme(names, table_size, weights)]


# The contract


def test_schemes_go_by_the_names_that_a_configuration_uses():
    assert dict(TABLES) == {
        "maglev": lookup_table,
        "modulo": modulo_table,
        "ring": ring_table,
        "rendezvous": rendezvous_table,
    }


@every_scheme
@properties
@given(names_of_backends, primes, st.data())
def test_listing_backends_in_another_order_changes_nothing(scheme, names, table_size, data):
    weights = {name: data.draw(st.integers(0, 3)) for name in names}
    other = data.draw(st.permutations(names))
    one = holders(scheme, names, table_size, list(weights.values()))
    assert one == holders(scheme, other, table_size, [weights[name] for name in other])


@every_scheme
@properties
@given(names_of_backends, primes, st.data())
def test_a_backend_of_weight_0_might_as_well_be_absent(scheme, names, table_size, data):
    weights = data.draw(st.lists(st.sampled_from([0, 1, 2.5]), min_size=len(names), max_size=len(names)).filter(any))
    present = [i for i, weight in enumerate(weights) if weight]
    without = holders(scheme, [names[i] for i in present], table_size, [weights[i] for i in present])
    assert holders(scheme, names, table_size, weights) == without


@every_scheme
@properties
@given(names_of_backends, primes, st.sampled_from([1, 0.1, 7, 1e-300, 1e308]))
def test_equal_weights_are_no_weights(scheme, names, table_size, weight):
    assert scheme(names, table_size, [weight] * len(names)).tolist() == scheme(names, table_size).tolist()


@every_scheme
def test_every_slot_has_a_backend_and_every_backend_a_slot(scheme):
    table = scheme(backends(30), 4999)
    assert table.shape == (4999,)
    assert table.dtype == np.int32
    assert set(table.tolist()) == set(range(30))


@every_scheme
def test_a_table_has_65537_slots_unless_told_otherwise(scheme):
    assert scheme(["s1", "s2"]).shape == (65537,)


@every_scheme
@pytest.mark.parametrize(("names", "weights"), [([], None), ([], []), (["s1", "s2"], [0, 0])])
def test_without_any_weight_every_slot_is_nobodys(scheme, names, weights):
    table = scheme(names, 7, weights)
    assert table.tolist() == [-1] * 7
    assert table.dtype == np.int32


@every_scheme
@pytest.mark.parametrize(
    ("names", "table_size", "weights", "message"),
    [
        (["s1"], 65536, None, "table_size is 65536; allowed: a prime"),
        ([], 2**61 - 1, None, "table_size is 2305843009213693951; allowed: a prime up to 2147483647"),
        (["s2", "s1", "s2"], 7, None, "the name 's2' occurs twice; allowed: every backend once"),
        (["s2", "s1"], 7, [-1, 1], "weight of backend 0 is -1.0; allowed: a finite number, 0 or above"),
        (["s2", "s1"], 7, [1], r"weights have shape \(1,\); allowed: one for each of the 2 backends"),
    ],
)
def test_what_maglev_refuses_all_refuse(scheme, names, table_size, weights, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        scheme(names, table_size, weights)


@every_scheme
def test_slots_follow_the_weights(scheme):
    """Weights 1, 2, 3, 4 four times over, in 65537 slots.

    Maglev and modulo are exact to the slot. The other two are random. A class of weight w has the share p = w / 10:
    rendezvous draws each slot, sd sqrt(p (1 - p) / 65537), at most 0.2 %; and the ring has 1000 w points in 10,000,
    arcs of exponential length, sd of a share about sqrt(p (1 - p) / 10000), at most 0.5 %. Allowed: 4 sd of that.
    """
    weights = np.array([1, 2, 3, 4] * 4)
    table = scheme(backends(16), 65537, weights)
    shares = [np.isin(table, np.flatnonzero(weights == weight)).mean() for weight in (1, 2, 3, 4)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.02)


# Modulo


@pytest.mark.parametrize(
    ("weights", "table"),
    [(None, "0 1 2 0 1 2 0"), ([1, 0, 1], "0 2 0 2 0 2 0"), ([2, 1, 2], "0 2 1 0 2 0 2")],
)
def test_modulo_deals_slots_in_turn(weights, table):
    assert modulo_table(["a", "b", "c"], 7, weights).tolist() == [int(i) for i in table.split()]


# The ring

MASK = 2**64 - 1


def split_mix(state):
    """SplitMix64's output for a state, in whole numbers."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
    return state ^ state >> 31


def test_the_generator_is_split_mix():
    """The first three outputs for seed 1234567, as published with the generator's reference code."""
    golden = 0x9E3779B97F4A7C15
    outputs = [split_mix((1234567 + i * golden) & MASK) for i in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def ring_naively(names, table_size, views):
    """Walks clockwise from each slot, a fraction of the ring, until it meets a point."""
    points = {
        split_mix((name_hashes(name)[0] + i * 0x9E3779B97F4A7C15) & MASK): name
        for name in names
        for i in range(1, views[name] + 1)
    }
    clockwise = sorted(points)
    places = [slot * (2**64 // table_size) for slot in range(table_size)]
    return [points[next((point for point in clockwise if point >= place), clockwise[0])] for place in places]


@properties
@given(names_of_backends, primes, st.integers(1, 9))
def test_the_ring_is_a_plain_ring(names, table_size, points):
    expected = ring_naively(names, table_size, dict.fromkeys(names, points))
    table = ring_table(names, table_size, points=points)
    assert [names[i] for i in table] == expected


def test_points_on_the_ring_are_as_many_as_the_weight_says():
    """Of 10 points the heaviest has 10, half its weight 5, a hundredth of it still one."""
    names = ["a", "b", "c"]
    expected = ring_naively(names, 199, {"a": 5, "b": 10, "c": 1})
    assert [names[i] for i in ring_table(names, 199, [100, 200, 2], points=10)] == expected


def test_more_points_make_the_ring_more_even():
    """The deviation of a share falls with the root of the points: 1 to 1000 points, some 30 times; asserted: 5."""
    few, many = (np.bincount(ring_table(backends(50), 65537, points=points), minlength=50) for points in (1, 1000))
    assert few.std() > 5 * many.std()


def test_a_ring_without_points_is_refused():
    with pytest.raises(ValueError, match=r"^points is 0; allowed: 1 or above$"):
        ring_table(["s1"], 7, points=0)


# Rendezvous


def rendezvous_naively(names, table_size, weights):
    """Each slot's highest scorer, by -w / ln u."""
    return [max(sorted(names), key=lambda name: score(name, slot, weights)) for slot in range(table_size)]


def score(name, slot, weights):
    mixed = split_mix(name_hashes(name)[0] ^ split_mix((slot + 1) * 0x9E3779B97F4A7C15 & MASK))
    return -weights[name] / log(((mixed >> 11) + 0.5) / 2**53)


@properties
@given(names_of_backends, primes, st.data())
def test_rendezvous_is_the_highest_score(names, table_size, data):
    weights = {name: data.draw(st.integers(1, 5)) for name in names}
    assert holders(rendezvous_table, names, table_size, list(weights.values())) == rendezvous_naively(
        names, table_size, weights
    )


@pytest.mark.parametrize("scheme", [ring_table, rendezvous_table])
@properties
@given(names=names_of_backends.filter(lambda names: len(names) > 1), table_size=primes, data=st.data())
def test_ring_and_rendezvous_move_only_what_the_leaver_had(scheme, names, table_size, data):
    weights = {name: data.draw(st.integers(1, 5)) for name in names}
    weights[names[0]] = 5  # the heaviest stays: the others' points on the ring are counted by it
    gone = data.draw(st.sampled_from(names[1:]))
    stay = [name for name in names if name != gone]
    before = holders(scheme, names, table_size, list(weights.values()))
    after = holders(scheme, stay, table_size, [weights[name] for name in stay])
    assert all(old in (new, gone) for old, new in zip(before, after, strict=True))


# Bounded loads


@properties
@given(names_of_backends, primes, st.data())
def test_bounded_is_the_highest_score_of_those_who_have_room(names, table_size, data):
    weights = {name: data.draw(st.integers(1, 5)) for name in names}
    due = {name: table_size * weight / sum(weights.values()) for name, weight in weights.items()}
    held = []
    for slot in range(table_size):
        roomy = [name for name in sorted(names) if held.count(name) < 1.1 * due[name] - 1e-9]
        held.append(max(roomy, key=lambda name: score(name, slot, weights)))
    assert holders(bounded_table, names, table_size, list(weights.values())) == held


def test_a_little_slack_leaves_little_disruption():
    """Less than a third of Maglev hashing's, with nobody more than a tenth and a slot above the mean."""
    names = backends(50)
    tables = {scheme: scheme(names, 5003) for scheme in (bounded_table, lookup_table)}
    assert np.bincount(tables[bounded_table]).max() <= 1.1 * 5003 / 50 + 1
    moved = dict.fromkeys(tables, 0.0)
    for gone in range(0, 50, 5):
        for scheme, table in tables.items():
            after = table_without(scheme, names, 5003, [gone])
            moved[scheme] += disruption(table, after, [gone]).of_others
    assert moved[bounded_table] < moved[lookup_table] / 3


@pytest.mark.parametrize("slack", [0, -1, float("nan"), float("inf")])
def test_a_slack_that_is_none_is_refused(slack):
    with pytest.raises(ValueError, match="allowed: a number above 0"):
        bounded_table(["a"], 7, None, slack)
