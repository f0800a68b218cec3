"""ECMP in theory: what moves when next hops come and go, held against counting points, and against this kernel."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from namespaces import ip

from maglev.ecmp import (
    expected_moves,
    hash_key,
    point,
    resilient_moves,
    resilient_table,
    resilient_update,
    threshold,
    threshold_moves,
)
from maglev.flow import TCP, UDP, Flow, pack_address

HOPS = tuple("abcdefgh")
some_hops = st.lists(st.sampled_from(HOPS), min_size=1, unique=True).map(sorted)


FLOW = Flow(pack_address("10.0.1.2"), pack_address("192.0.2.1"), TCP, 40000, 80)
OTHERS = {
    "source": FLOW._replace(source=pack_address("10.0.2.2")),
    "destination": FLOW._replace(destination=pack_address("192.0.2.2")),
    "protocol": FLOW._replace(protocol=UDP),
    "source_port": FLOW._replace(source_port=40001),
    "destination_port": FLOW._replace(destination_port=7),
}


def test_layer_3_hashes_addresses_and_layer_4_ports_as_well():
    assert {name for name, other in OTHERS.items() if hash_key(other, 3) != hash_key(FLOW, 3)} == {
        "source", "destination"
    }  # fmt: skip
    assert all(hash_key(other, 4) != hash_key(FLOW, 4) for other in OTHERS.values())
    with pytest.raises(ValueError, match="allowed: 3 or 4"):
        hash_key(FLOW, 5)


def test_points_are_even_and_another_seed_makes_others():
    flows = [FLOW._replace(source_port=port) for port in range(30_000, 40_000)]
    low = [flow for flow in flows if point(flow, seed=1) < Fraction(1, 2)]
    assert abs(len(low) - 5000) < 250  # five standard deviations of a fair coin
    assert abs(sum(point(flow, seed=2) < Fraction(1, 2) for flow in low) - len(low) / 2) < 180


def counted_moves(before, after, points=27_720):
    """Moves at so many points; 27,720 is a multiple of every number from 1 to 12, so no interval cuts one."""
    moved = sum(threshold(Fraction(p, points), before) != threshold(Fraction(p, points), after) for p in range(points))
    return Fraction(moved, points)


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        ("abc", "abc", Fraction(0)),
        ("abc", "bc", Fraction(1, 2)),  # a's third, and the half of b's third that now is c's
        ("abc", "ac", Fraction(1, 3)),  # the middle one's flows alone: its neighbours meet where it was
        ("abcd", "bcd", Fraction(1, 2)),
        ("abcd", "abcde", Fraction(1, 2)),  # 1/20 of the flows from a, 2/20 from b, 3/20 from c, 4/20 from d
        ("a", "b", Fraction(1)),
    ],
)
def test_the_threshold_moves_what_one_counts_on_paper(before, after, moves):
    assert threshold_moves(before, after) == moves


@given(some_hops, some_hops)
def test_the_threshold_moves_what_counting_points_finds(before, after):
    assert threshold_moves(before, after) == counted_moves(before, after)


@given(some_hops, st.integers(8, 300))
def test_a_resilient_table_is_even(hops, buckets):
    table = resilient_table(hops, buckets)
    counts = [table.count(hop) for hop in hops]
    assert len(table) == buckets
    assert max(counts) - min(counts) <= 1


@given(some_hops, st.lists(some_hops, min_size=1, max_size=6), st.integers(8, 300))
def test_a_resilient_table_moves_no_bucket_that_may_stay(first, later, buckets):
    table = resilient_table(first, buckets)
    for hops in later:
        updated = resilient_update(table, hops)
        counts = [updated.count(hop) for hop in hops]
        assert sum(counts) == buckets
        assert max(counts) - min(counts) <= 1
        lost = sum(hop not in hops for hop in table)  # these must move
        excess = sum(max(0, table.count(hop) - updated.count(hop)) for hop in hops)  # and these, to be even
        assert resilient_moves(table, hops) == Fraction(lost + excess, buckets)
        table = updated


def buckets_of_kernel():
    return tuple(entry["bucket"]["nhid"] for entry in json.loads(ip("-j nexthop bucket show id 100")))


def test_the_kernel_moves_as_many_buckets_as_theory_says(in_namespace):
    """Which buckets move is the kernel's business; how many is not."""
    steps = [(1, 2, 3), (1, 3), (1, 2, 3), (1, 2, 3, 4), (2, 3, 4), (4,), (1, 2, 3, 4)]

    def body(wires):
        for number in (1, 2, 3, 4):
            ip(f"nexthop add id {number} via 10.1.1.{number} dev {wires.maglev}")
        kernel = None
        for hops in steps:
            ip(f"nexthop replace id 100 group {'/'.join(map(str, hops))} type resilient buckets 128 idle_timer 0")
            before, kernel = kernel, buckets_of_kernel()
            expected = resilient_update(before, hops) if before else resilient_table(hops, 128)
            assert [kernel.count(hop) for hop in hops] == [expected.count(hop) for hop in hops], f"to {hops}"
            if before:
                moved = sum(old != new for old, new in zip(before, kernel, strict=True))
                assert Fraction(moved, 128) == resilient_moves(before, hops), f"to {hops}"

    in_namespace(body)


@given(some_hops, some_hops)
def test_expected_moves_are_those_of_the_map_that_is_asked_for(before, after):
    assert expected_moves(before, after) == threshold_moves(before, after)
    assert expected_moves(before, after, 64) == resilient_moves(resilient_table(before, 64), after)
