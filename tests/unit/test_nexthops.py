"""Routes made into resilient groups: which commands a change of BIRD's table comes to."""

from __future__ import annotations

import pytest

pytest.importorskip("pyroute2")

from lab.nexthops import Groups, read

M1, M2 = ("10.1.1.2", "r1-eth4"), ("10.1.2.2", "r1-eth5")
WWW, DNS = "192.0.2.1", "192.0.2.53"
ARGUMENTS = "type resilient buckets 128 idle_timer 0"


def groups_with(routes):
    groups = Groups(128, 0)
    groups.update(routes)
    return groups


def test_a_route_needs_its_next_hops_and_its_group_first():
    assert Groups(128, 0).update({WWW: frozenset({M1, M2})}) == [
        "nexthop replace id 1 via 10.1.1.2 dev r1-eth4",
        "nexthop replace id 2 via 10.1.2.2 dev r1-eth5",
        f"nexthop replace id 1000 group 1/2 {ARGUMENTS}",
        "route replace 192.0.2.1 nhid 1000 proto bird table main",
    ]


def test_what_is_as_it_was_needs_nothing():
    routes = {WWW: frozenset({M1, M2})}
    assert groups_with(routes).update(dict(routes)) == []


def test_a_next_hop_that_leaves_goes_after_its_group_has_let_it_go():
    assert groups_with({WWW: frozenset({M1, M2})}).update({WWW: frozenset({M2})})[-3:] == [
        f"nexthop replace id 1000 group 2 {ARGUMENTS}",
        "route replace 192.0.2.1 nhid 1000 proto bird table main",
        "nexthop del id 1",
    ]


def test_a_route_that_goes_takes_its_group_and_its_own_next_hops():
    groups = groups_with({WWW: frozenset({M1, M2}), DNS: frozenset({M2})})
    assert groups.update({DNS: frozenset({M2})}) == [
        "route del 192.0.2.1 proto bird table main",
        "nexthop del id 1000",
        "nexthop del id 1",
    ]


def test_every_prefix_has_a_group_of_its_own():
    lines = Groups(64, 2.5).update({WWW: frozenset({M1}), DNS: frozenset({M1})})
    assert [line for line in lines if "group" in line] == [
        "nexthop replace id 1000 group 1 type resilient buckets 64 idle_timer 2.5",
        "nexthop replace id 1001 group 1 type resilient buckets 64 idle_timer 2.5",
    ]


def test_numbers_are_used_again():
    groups = groups_with({WWW: frozenset({M1, M2})})
    groups.update({WWW: frozenset({M2})})
    lines = groups.update({WWW: frozenset({M1, M2})})
    assert "nexthop replace id 1 via 10.1.1.2 dev r1-eth4" in lines


def test_routes_are_read_as_ip_lists_them():
    two = [{"gateway": "10.1.1.2", "dev": "r1-eth4"}, {"gateway": "10.1.2.2", "dev": "r1-eth5"}]
    listed = [{"dst": WWW, "nexthops": two}, {"dst": DNS, "gateway": "10.1.2.2", "dev": "r1-eth5"}]
    assert read(listed) == {WWW: frozenset({M1, M2}), DNS: frozenset({M2})}
