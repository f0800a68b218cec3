"""Shares of the connection table: held to a count by hand; reference and fast path to each other."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from maglev.compiled import fast
from maglev.conntrack import ConnectionTable
from maglev.fast.conntrack import KEY_BYTES, FastConnectionTable
from maglev.fast.flow import key_of
from maglev.fast.numbering import Numbering
from maglev.fast.shares import bucket_of_source
from maglev.flow import TCP, Flow, pack_address
from maglev.shares import FEWEST_BUCKETS, bucket_of, buckets_for, most_entries

IDLE_S = 60.0
A = pack_address("10.2.1.2")
VIP = pack_address("192.0.2.1")


def flow(source, port):
    return Flow(pack_address(source), VIP, TCP, port, 80)


def reference_table(capacity, most):
    return ConnectionTable(capacity, IDLE_S, most)


def fast_table(capacity, most):
    return FastConnectionTable(Numbering(), capacity, IDLE_S, bytes(KEY_BYTES), most_per_source=most)


@pytest.fixture(params=[reference_table, fast_table], ids=["reference", "fast"])
def new_table(request):
    return request.param


def bucket(source, key=0, buckets=FEWEST_BUCKETS):
    return bucket_of(pack_address(source), key, buckets)


def two_in_one_bucket():
    first = {}
    for number in range(1 << 16):
        source = f"203.0.{number >> 8}.{number & 255}"
        other = first.setdefault(bucket(source), source)
        if other != source:
            return [other, source]
    raise AssertionError("65,536 sources should meet in 4,096 buckets")


TOGETHER = two_in_one_bucket()
SOURCES = ["198.51.100.1", "2001:db8:1::1", "2001:db8:2::1", *TOGETHER]


class Both(RuleBasedStateMachine):
    """Does the same to both tables, in any order, while time goes by; and counts entries as one would by hand.

    `seen` has each flow's last use, `past` those of entries that had gone when their flow came again. An entry that
    lives counts, one that has been gone for a quarter of an idle timeout does not, and in between it may.
    """

    flows = st.builds(flow, st.sampled_from(SOURCES), st.integers(1, 6))

    @initialize(most=st.integers(1, 4), capacity=st.sampled_from([6, 100]))
    def build(self, most, capacity):
        self.most, self.capacity, self.now = most, capacity, 1000.0
        self.tables = [make(capacity, most) for make in (reference_table, fast_table)]
        self.seen, self.past = {}, []

    def used_within(self, source, seconds):
        whose = TOGETHER if source in map(pack_address, TOGETHER) else None
        same = set(map(pack_address, whose)) if whose else {source}
        uses = [*self.seen.items(), *self.past]
        return sum(each.source in same and self.now - last < seconds for each, last in uses)

    @rule(seconds=st.sampled_from([0.0, 1.0, 7.0, 15.0, 20.0, 59.0, 61.0, 1000.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(flow=flows)
    def lookup(self, flow):
        expected, found = (table.lookup(flow, self.now) for table in self.tables)
        assert found == expected, f"{flow} should have been with {expected}, but was with {found}"
        if found:
            self.seen[flow] = self.now

    @rule(flow=flows)
    def record(self, flow):
        living, lately = self.used_within(flow.source, IDLE_S), self.used_within(flow.source, IDLE_S * 1.25)
        known = flow in self.seen and self.now - self.seen[flow] < IDLE_S
        before = self.tables[0].over_share
        expected, found = (table.record(flow, A, self.now) for table in self.tables)
        refused, refused_fast = (table.over_share for table in self.tables)
        assert (found, refused_fast) == (expected, refused), f"{flow}: recorded {expected}, but fast {found}"
        refused = refused > before
        assert not (known and refused), f"{flow} has its entry, and should have kept it"
        assert not refused or lately >= self.most, f"{flow}: refused, though its source has at most {lately} entries"
        if not known and living >= self.most:
            assert not found, f"{flow}: recorded, though its source has {living} living entries of {self.most}"
        if found:
            if flow in self.seen and not known:
                self.past.append((flow, self.seen[flow]))
            self.seen[flow] = self.now


Both.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestBoth = Both.TestCase


def recorded(table, source, ports, now=0.0):
    return sum(table.record(flow(source, port), A, now) for port in ports)


def test_a_source_has_its_share_and_others_have_the_rest(new_table):
    table = new_table(1000, 300)
    assert recorded(table, "198.51.100.66", range(5000)) == 300
    assert (table.over_share, table.overflows, len(table)) == (4700, 0, 300)
    assert recorded(table, "203.0.113.7", range(300)) == 300, "another source has a share of its own"
    assert recorded(table, "203.0.113.8", range(300)) == 300
    assert recorded(table, "203.0.113.9", range(300)) == 100, "and then the table is full"
    assert (table.over_share, table.overflows) == (4700, 200)


def test_without_a_share_one_source_fills_the_table(new_table):
    table = new_table(1000, None)
    assert recorded(table, "198.51.100.66", range(5000)) == 1000
    assert recorded(table, "203.0.113.7", range(10)) == 0


def test_what_is_known_stays_known_beyond_the_share(new_table):
    table = new_table(100, 2)
    recorded(table, "203.0.113.7", [1, 2])
    assert table.record(flow("203.0.113.7", 1), A, 1.0), "a flow that has its place keeps it"
    assert not table.record(flow("203.0.113.7", 3), A, 1.0)
    assert table.lookup(flow("203.0.113.7", 3), 1.0) is None


def test_an_ipv6_source_is_a_64(new_table):
    """Whoever has one address of it may take any of them."""
    table = new_table(1000, 10)
    assert sum(recorded(table, f"2001:db8:0:1::{number:x}", [1]) for number in range(1, 100)) == 10
    assert recorded(table, "2001:db8:0:2::1", range(100)) == 10, "the next /64 is another source"


def test_room_comes_back_at_latest_a_quarter_after_the_idle_timeout(new_table):
    table = new_table(100, 5)
    recorded(table, "203.0.113.7", range(5), 14.9)
    assert recorded(table, "203.0.113.7", range(10, 20), 74.8) == 0, "at 74.8 s they live"
    assert recorded(table, "203.0.113.7", range(10, 20), 90.0) == 5, "and at 90 s their quarter has gone"


def test_connections_that_are_used_count_for_as_long(new_table):
    table = new_table(100, 3)
    recorded(table, "203.0.113.7", range(3))
    for now in range(10, 1000, 10):
        assert all(table.lookup(flow("203.0.113.7", port), now) for port in range(3))
        assert not table.record(flow("203.0.113.7", 9), A, now), f"at {now} s three live"


def test_a_source_that_was_away_for_long_begins_anew(new_table):
    table = new_table(100, 3)
    for now in (0.0, 1e4, 1e4 + 300, 1e9):
        assert recorded(table, "203.0.113.7", range(10), now) == 3


@pytest.mark.parametrize("prefix", ["10.{}.{}.7", "203.0.{}.{}", "2001:db8:{:x}:{:x}::1", "{1:x}:{0:x}::1"])
def test_buckets_are_spread_evenly(prefix):
    """65,536 neighbours over 4,096 buckets, 16 each on average: none has far more, and few have none.

    A random spread has 16 +- 4 and e**-16 of the buckets empty; 16 + 8 * 4 would be a bucket in 10**9.
    """
    key = random.Random(1).getrandbits(64)
    counts = Counter(bucket(prefix.format(number >> 8, number & 255), key) for number in range(1 << 16))
    assert max(counts.values()) <= 48, f"the fullest bucket has {max(counts.values())}"
    assert len(counts) > 4000, f"only {len(counts)} buckets are in use"


def test_who_shares_a_bucket_depends_on_the_key():
    keys = [random.Random(2).getrandbits(64) for _ in range(1)] + [1 << 40, 3 << 20, (1 << 64) - 1]
    assert bucket(TOGETHER[0]) == bucket(TOGETHER[1])
    assert [key for key in keys if bucket(TOGETHER[0], key) != bucket(TOGETHER[1], key)], "they meet under any key"


@fast
def compiled_bucket(high, low, key, buckets):
    return bucket_of_source(high, low, key, buckets)


def test_both_find_the_same_bucket():
    dice = random.Random(3)
    for _ in range(300):
        source = dice.choice([dice.randbytes(16), pack_address(f"10.1.{dice.randrange(256)}.1"), bytes(16), bytes(8)])
        source = source.rjust(16, b"\0")
        key, buckets = dice.getrandbits(64), buckets_for(dice.randrange(1 << 26))
        words = key_of(Flow(source, VIP, 0, 0, 0))
        found = compiled_bucket(words[0], words[1], np.uint64(key), buckets)
        assert found == bucket_of(source, key, buckets) < buckets


def test_a_share_is_an_entry_at_least_and_1_is_no_limit():
    assert [most_entries(1000, share) for share in (0.5, 0.001, 0.0001, 1, 1.0)] == [500, 1, 1, None, None]
