"""The connection table, held to a naive model of itself: a list of entries, searched and swept from end to end."""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from maglev.conntrack import ConnectionTable
from maglev.engine.memory import zeros_by_page
from maglev.fast.conntrack import FastConnectionTable
from maglev.fast.numbering import Numbering
from maglev.flow import Flow, pack_address

A, B = pack_address("10.2.1.2"), pack_address("10.2.2.2")
IDLE_S = 60.0


def flow(port):
    return Flow(pack_address("203.0.113.7"), pack_address("192.0.2.1"), 6, port, 80)


def fast_table(capacity, idle_timeout_s):
    return FastConnectionTable(Numbering(), capacity, idle_timeout_s)


@dataclass
class Entry:
    flow: Flow
    backend: bytes
    last_use: float


class NaiveTable:
    """What the connection table is to do, without a thought for speed."""

    def __init__(self, capacity, idle_timeout_s):
        self.capacity, self.idle_timeout_s = capacity, idle_timeout_s
        self.entries, self.overflows = [], 0

    def live(self, now):
        return [entry for entry in self.entries if now - entry.last_use < self.idle_timeout_s]

    def lookup(self, flow, now):
        for entry in self.live(now):
            if entry.flow == flow:
                entry.last_use = now
                return entry.backend
        return None

    def record(self, flow, backend, now):
        self.entries = self.live(now)
        for entry in self.entries:
            if entry.flow == flow:
                entry.backend, entry.last_use = backend, now
                return True
        if len(self.entries) >= self.capacity:
            self.overflows += 1
            return False
        self.entries.append(Entry(flow, backend, now))
        return True


class Tables(RuleBasedStateMachine):
    """Does the same to the table and to the model, in any order, while time goes by."""

    kind = ConnectionTable
    flows = st.integers(1, 4).map(flow)
    backends = st.sampled_from([A, B])

    @initialize(capacity=st.integers(0, 3), idle_timeout_s=st.sampled_from([1.0, 2.0]))
    def build(self, capacity, idle_timeout_s):
        self.table = self.kind(capacity, idle_timeout_s)
        self.model = NaiveTable(capacity, idle_timeout_s)
        self.now = 1000.0

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(flow=flows)
    def lookup(self, flow):
        expected, found = self.model.lookup(flow, self.now), self.table.lookup(flow, self.now)
        assert found == expected, f"{flow} should have been with {expected}, but was with {found}"

    @rule(flow=flows, backend=backends)
    def record(self, flow, backend):
        expected, found = self.model.record(flow, backend, self.now), self.table.record(flow, backend, self.now)
        assert found == expected, f"{flow} should have been recorded: {expected}, but was: {found}"
        size, right = len(self.table), len(self.model.entries)
        assert size == right, f"after a record there should have been {right} entries, but were {size}"

    @rule(within_s=st.sampled_from([0.25, 1.0]))
    def count(self, within_s):
        used = [entry for entry in self.model.entries if self.now - entry.last_use < within_s]
        expected = Counter(entry.backend for entry in used)
        found = self.table.by_backend(self.now, within_s)
        assert found == expected, f"the backends should have had {expected}, but had {found}"

    @invariant()
    def keeps_what_lives_within_its_capacity(self):
        live = len(self.model.live(self.now))
        assert live <= len(self.table) <= self.table.capacity, f"{len(self.table)} entries, of which {live} live"
        assert self.table.overflows == self.model.overflows, f"should have overflowed {self.model.overflows} times"


class FastTables(Tables):
    """The same for the compiled table."""

    kind = staticmethod(fast_table)


for machine in (Tables, FastTables):
    machine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAgainstTheModel = Tables.TestCase
TestFastAgainstTheModel = FastTables.TestCase


@pytest.fixture(params=[ConnectionTable, fast_table], ids=["reference", "fast"])
def new_table(request):
    return request.param


def test_an_entry_lives_until_it_has_been_idle_for_the_whole_timeout(new_table):
    table = new_table(4, IDLE_S)
    table.record(flow(1), A, 100.0)
    assert table.lookup(flow(1), 159.9) == A, "an entry idle for 59.9 s of 60 should live"
    assert table.lookup(flow(1), 219.8) == A, "a lookup is a use: 59.9 s later it should live still"
    assert table.lookup(flow(1), 279.8) is None, "an entry idle for exactly 60 s should be gone"


def test_a_lookup_keeps_an_entry_from_expiring_before_those_recorded_after_it(new_table):
    table = new_table(4, IDLE_S)
    table.record(flow(1), A, 0.0)
    table.record(flow(2), B, 1.0)
    table.lookup(flow(1), 50.0)
    table.record(flow(3), B, 61.0)
    assert table.lookup(flow(1), 61.0) == A, "the flow used at 50 s should live at 61 s"
    assert table.lookup(flow(2), 61.0) is None, "the flow last used at 1 s should be gone at 61 s"
    assert len(table) == 2, f"the idle one should have left room: 2 entries, but were {len(table)}"


def test_a_new_record_of_a_known_flow_counts_as_its_last_use(new_table):
    table = new_table(2, IDLE_S)
    table.record(flow(1), A, 0.0)
    table.record(flow(2), B, 1.0)
    table.record(flow(1), B, 50.0)
    assert table.record(flow(3), A, 61.0), "at 61 s the flow recorded at 1 s should have made room"
    assert table.lookup(flow(1), 61.0) == B, "and the one recorded again at 50 s should live"


def test_a_full_table_forgets_nobody_and_takes_nobody(new_table):
    table = new_table(2, IDLE_S)
    assert table.record(flow(1), A, 0.0), "a first flow should fit into a table of two"
    assert table.record(flow(2), B, 0.0), "and a second"
    assert not table.record(flow(3), A, 1.0), "a third should have been refused"
    assert table.lookup(flow(3), 1.0) is None, "and not be found"
    found = table.lookup(flow(1), 1.0), table.lookup(flow(2), 1.0)
    assert found == (A, B), f"the two should have kept their backends, but have {found}"
    assert table.overflows == 1, f"one overflow should have been counted, but {table.overflows} were"


def test_a_full_table_still_changes_the_backend_of_a_flow_that_it_holds(new_table):
    table = new_table(1, IDLE_S)
    table.record(flow(1), A, 0.0)
    assert table.record(flow(1), B, 1.0), "a flow that has its place should keep it"
    assert table.lookup(flow(1), 1.0) == B, "with the new backend"


def test_room_comes_back_by_expiry_only(new_table):
    table = new_table(1, IDLE_S)
    table.record(flow(1), A, 0.0)
    assert not table.record(flow(2), B, 59.9), "the table should be full until its entry has expired"
    assert table.record(flow(2), B, 60.0), "and then have room"


def test_a_capacity_of_0_remembers_nothing(new_table):
    table = new_table(0, IDLE_S)
    assert not table.record(flow(1), A, 0.0), "nothing should be recorded"
    assert table.lookup(flow(1), 0.0) is None, "nothing should be found"
    assert len(table) == 0


@pytest.mark.parametrize(("capacity", "idle_timeout_s"), [(-1, 60.0), (1, 0.0), (1, -1.0)])
def test_a_table_that_makes_no_sense_is_refused(new_table, capacity, idle_timeout_s):
    with pytest.raises(ValueError, match="capacity of 0 or more and an idle timeout above 0 s"):
        new_table(capacity, idle_timeout_s)


def resident_bytes():
    """The memory that this process really has, as proc(5) says in statm: the second number, in pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_resident_memory_is_seen():
    """So that the next test means something."""
    before = resident_bytes()
    block = bytearray(b"x") * (64 << 20)
    grown = resident_bytes() - before
    assert grown > 60 << 20, f"{len(block) >> 20} MiB were written, but only {grown >> 20} MiB are resident"


def test_a_large_table_takes_memory_as_flows_come():
    """A million entries are 128 MiB. A thousand flows touch a thousand pages at most, not huge ones of 2 MiB each.

    The memory is that of the engines; 2 MiB more say which slots are taken.
    """
    fast_table(10, IDLE_S).record(flow(1), A, 0.0)  # what is compiled is compiled
    before = resident_bytes()
    table = FastConnectionTable(Numbering(), 1 << 20, IDLE_S, zeros=zeros_by_page)
    built = resident_bytes() - before
    for port in range(1000):
        assert table.record(flow(port), A, 0.0)
    assert table.arrays.entries.nbytes == 128 << 20
    grown = resident_bytes() - before
    assert built < 4 << 20, f"an empty table should take next to nothing, but took {built >> 10} KiB"
    assert 1 << 20 < grown < 10 << 20, f"1,000 flows should take some 4 to 6 MiB, but took {grown >> 10} KiB"
    assert table.lookup(flow(999), 1.0) == A
