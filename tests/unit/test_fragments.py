"""The fragment table, held to a naive model of itself: bounds in packets, fragments, bytes and time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from frames import CLIENT, CLIENT6, VIP, VIP6, fragments, fragments6, frame6
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from maglev.flow import Flow, pack_address
from maglev.fragments import Choice, FragmentTable, Key, Limits, Owners, key_of
from maglev.packets import Fragment, Packet, parse

A, B = Choice(pack_address("10.2.1.2"), "www"), Choice(pack_address("10.2.2.2"), "dns")
ENDS = pack_address(CLIENT), pack_address(VIP)
PATIENT = Limits(packets=100, held_fragments=100, held_bytes=100_000, timeout_s=2.0)


def key(number):
    return Key(Flow(*ENDS, 17, 0, 0), number)


def part(number, size=100):
    """A later fragment, of so many bytes, of the packet `number`."""
    return Packet(*ENDS, 17, 20, bytes(size), Fragment(number, 8, True, 17))


@dataclass
class Entry:
    key: Key
    since: float
    choice: Choice | None = None
    held: list[Packet] = field(default_factory=list)


class NaiveTable:
    """What the fragment table is to do: everything is searched, and added up, whenever it is asked for."""

    def __init__(self, limits):
        self.limits, self.entries, self.overflows, self.lost = limits, [], 0, 0

    def sweep(self, now):
        over = [entry for entry in self.entries if now - entry.since >= self.limits.timeout_s]
        self.entries = [entry for entry in self.entries if entry not in over]
        self.lost += sum(len(entry.held) for entry in over)

    def find(self, key, now):
        self.sweep(now)
        found = [entry for entry in self.entries if entry.key == key]
        return found[0] if found else None

    def add(self, key, now):
        if len(self.entries) >= self.limits.packets:
            self.overflows += 1
            return None
        self.entries.append(Entry(key, now))
        return self.entries[-1]

    def held(self):
        return [packet for entry in self.entries for packet in entry.held]

    def choice(self, key, now):
        entry = self.find(key, now)
        return entry and entry.choice

    def first(self, key, choice, now):
        entry = self.find(key, now) or self.add(key, now)
        if entry is None:
            return []
        released, entry.held, entry.choice = entry.held, [], choice
        return released

    def hold(self, key, packet, now):
        self.sweep(now)
        together = [*self.held(), packet]
        size = sum(len(each.data) for each in together)
        if len(together) > self.limits.held_fragments or size > self.limits.held_bytes:
            return False
        entry = self.find(key, now) or self.add(key, now)
        if entry is None:
            return False
        entry.held.append(packet)
        return True


class Tables(RuleBasedStateMachine):
    """Does the same to the table and to the model, in any order, while time goes by."""

    keys = st.integers(1, 4).map(key)

    @initialize(packets=st.integers(1, 3), fragments=st.integers(0, 3), size=st.sampled_from([0, 99, 250]))
    def build(self, packets, fragments, size):
        limits = Limits(packets, fragments, size, timeout_s=2.0)
        self.table, self.model, self.now, self.sent = FragmentTable(limits), NaiveTable(limits), 1000.0, 0

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(key=keys, choice=st.sampled_from([A, B]))
    def first(self, key, choice):
        expected, found = self.model.first(key, choice, self.now), self.table.first(key, choice, self.now)
        assert list(found) == expected, f"{key}: should have released {expected}, but released {found}"

    @rule(key=keys, size=st.sampled_from([40, 99, 100]))
    def hold(self, key, size):
        self.sent += 1
        packet = part(key.identification, size)._replace(header_bytes=self.sent)  # to tell one from another
        if self.model.choice(key, self.now) is not None:
            return  # a forwarder holds no fragment whose first has come
        expected, found = self.model.hold(key, packet, self.now), self.table.hold(key, packet, self.now)
        assert found == expected, f"{key}: {size} bytes should have been held: {expected}, but: {found}"

    @rule(key=keys)
    def ask(self, key):
        expected, found = self.model.choice(key, self.now), self.table.choice(key, self.now)
        assert found == expected, f"{key}: the choice should have been {expected}, but was {found}"
        assert len(self.table) == len(self.model.entries)

    @invariant()
    def counts_alike(self):
        waiting = [entry for entry in self.model.entries if self.now - entry.since >= 2.0]
        expected = self.model.lost + sum(len(entry.held) for entry in waiting)
        found = self.table.expired(self.now)
        assert found == expected, f"{expected} should have waited in vain, but {found} have"
        assert self.table.overflows == self.model.overflows
        assert len(self.table) <= self.table.limits.packets


Tables.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAgainstTheModel = Tables.TestCase


def test_what_waited_is_released_once_in_the_order_of_arrival():
    table = FragmentTable(PATIENT)
    waiting = [part(1, 30), part(1, 20), part(1, 40)]
    for packet in waiting:
        assert table.hold(key(1), packet, 0.0)
        assert table.hold(key(2), part(2), 0.0), "those of another packet, in between, stay"
    assert table.choice(key(1), 1.0) is None, "nothing is chosen until the first comes"
    assert table.first(key(1), A, 1.0) == waiting
    assert table.first(key(1), A, 1.0) == [], "a second first releases nobody"
    assert table.choice(key(1), 1.0) == A
    assert table.choice(key(2), 1.0) is None


def test_a_packet_is_forgotten_a_timeout_after_what_came_first_of_it():
    table = FragmentTable(PATIENT)
    table.hold(key(1), part(1), 0.0)
    table.first(key(1), A, 1.5)
    assert table.choice(key(1), 1.99) == A
    assert table.choice(key(1), 2.0) is None, "two seconds after its earliest fragment, not after the first one"


def test_fragments_that_wait_in_vain_are_counted_when_their_time_is_over_and_once():
    table = FragmentTable(PATIENT)
    for now in (0.0, 0.5, 1.0):
        table.hold(key(1), part(1), now)
    table.hold(key(2), part(2), 1.0)
    assert [table.expired(now) for now in (1.99, 2.0, 2.5, 3.0)] == [0, 3, 3, 4], "asking changes nothing"
    assert table.choice(key(3), 2.5) is None
    assert [table.expired(now) for now in (2.5, 3.0)] == [3, 4], "nor does the sweep in between count them twice"
    assert table.first(key(1), A, 2.5) == [], "and they are gone"


@pytest.mark.parametrize(
    ("limits", "fit"),
    [
        (Limits(packets=3, held_fragments=100, held_bytes=10**6), 3),
        (Limits(packets=100, held_fragments=4, held_bytes=10**6), 4),
        (Limits(packets=100, held_fragments=100, held_bytes=500), 5),
        (Limits(packets=100, held_fragments=100, held_bytes=599), 5),
        (Limits(packets=100, held_fragments=0, held_bytes=10**6), 0),
    ],
    ids=["packets", "fragments", "bytes", "bytes, not quite", "none"],
)
def test_each_bound_is_kept_and_room_comes_back(limits, fit):
    table = FragmentTable(limits)
    held = [table.hold(key(number), part(number), 0.0) for number in range(10)]
    assert held == [True] * fit + [False] * (10 - fit), f"{fit} should have been held, but: {held}"
    again = [table.hold(key(number), part(number), 2.0) for number in range(20, 30)]
    assert again == held, f"when those have expired there should be as much room again, but: {again}"
    if fit:
        table.first(key(20), A, 2.0)
        another = table.hold(key(20 if limits.packets == 3 else 31), part(31), 2.0)
        assert another, "and when one is released there should be room for one more"


def test_a_full_table_follows_nobody_else_and_counts_it():
    table = FragmentTable(Limits(packets=1))
    table.first(key(1), A, 0.0)
    assert table.first(key(2), B, 0.0) == []
    assert table.choice(key(2), 0.0) is None, "there was no room for the second packet"
    assert not table.hold(key(2), part(2), 0.0), "nor for a fragment of it"
    assert (table.choice(key(1), 0.0), table.overflows, len(table)) == (A, 2, 1)


@pytest.mark.parametrize(
    ("pieces", "ends"), [(fragments(), (CLIENT, VIP)), (fragments6(), (CLIENT6, VIP6))], ids=["IPv4", "IPv6"]
)
def test_all_fragments_of_a_packet_have_one_key(pieces, ends):
    expected = Key(Flow(*map(pack_address, ends), 17, 0, 0), 77)
    found = {key_of(parse(raw)) for raw in pieces}
    assert found == {expected}, f"the key should have been {expected}, but there are {found}"


def test_a_first_fragment_with_more_headers_has_the_key_of_those_that_follow():
    """In IPv6 every fragment names what stands behind the first one's fragment header, which need not be UDP."""
    first = frame6(IPv6ExtHdrFragment(nh=60, m=1, id=5), IPv6ExtHdrDestOpt(nh=17), UDP(len=800), Raw(bytes(8)), nh=44)
    later = frame6(IPv6ExtHdrFragment(nh=60, offset=3, id=5), Raw(bytes(8)), nh=44)
    assert parse(first).protocol == 17, "behind its headers there is UDP"
    keys = [key_of(parse(raw)) for raw in (first, later)]
    assert keys == [Key(Flow(pack_address(CLIENT6), pack_address(VIP6), 60, 0, 0), 5)] * 2, keys


def test_fragments_of_other_packets_have_other_keys():
    others = [
        fragments(), fragments(id=78), fragments(source="203.0.113.8"), fragments(destination="192.0.2.2"),
        fragments6(), fragments6(identification=77 << 16),
    ]  # fmt: skip
    keys = [key_of(parse(pieces[-1])) for pieces in others]
    assert len(set(keys)) == len(others), f"each should have a key of its own, but there are {keys}"


# Owners


def owner_of(owners, number, chosen, now, lives=lambda maglev: True):
    return owners.of(key(number), lambda: chosen, lives, now)


def test_an_owner_is_remembered_for_so_long_and_not_longer():
    owners = Owners(Limits(timeout_s=2.0))
    assert [owner_of(owners, 1, chosen, now) for chosen, now in ((b"x", 0), (b"y", 1.9), (b"z", 2.0))] == [
        b"x",
        b"x",
        b"z",
    ]


def test_an_owner_that_has_died_is_replaced_and_the_next_remembered():
    owners = Owners()
    owner_of(owners, 1, b"x", 0.0)
    assert owner_of(owners, 1, b"y", 0.1, lives=lambda maglev: maglev != b"x") == b"y"
    assert owner_of(owners, 1, b"z", 0.2) == b"y"


def test_without_room_owners_are_not_remembered():
    owners = Owners(Limits(packets=1))
    assert [
        owner_of(owners, number, chosen, 0.0) for number, chosen in ((1, b"x"), (2, b"y"), (2, b"z"), (1, b"z"))
    ] == [
        b"x",
        b"y",
        b"z",
        b"x",
    ]
    assert len(owners) == 1
