"""Announcements: all or nothing, and the fewest commands that lead there."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maglev.announcements import commands, wanted

properties = settings(deadline=None)  # a busy machine is no fault

FIT = {"ready": True, "draining": False, "shard": "default", "vips": ["192.0.2.10", "192.0.2.9", "192.0.2.9"]}
ROUTES = frozenset({ip_network("192.0.2.9/32"), ip_network("192.0.2.10/32")})


def test_a_fit_forwarder_announces_every_vip_address_once():
    assert wanted(FIT) == ROUTES
    assert wanted(FIT | {"vips": ["2001:db8::1"]}) == {ip_network("2001:db8::1/128")}
    assert wanted(FIT | {"vips": ["192.0.2.16/28", "2001:db8::/64"]}) == {
        ip_network("192.0.2.16/28"),
        ip_network("2001:db8::/64"),
    }
    assert wanted(FIT | {"vips": []}) == frozenset()


UNFIT = [
    None,
    {},
    FIT | {"ready": False},
    FIT | {"draining": True},
    {key: value for key, value in FIT.items() if key != "draining"},
    FIT | {"ready": "no"},
    FIT | {"vips": None},
    FIT | {"vips": ["192.0.2.1", "nonsense"]},
    FIT | {"vips": [1]},
    FIT | {"vips": ["10.0.0.1/8"]},
    {key: value for key, value in FIT.items() if key != "vips"},
]


@pytest.mark.parametrize("status", UNFIT)
def test_an_unfit_forwarder_announces_nothing(status):
    assert wanted(status) == frozenset()


def test_commands_are_exabgps_withdrawals_first_in_the_order_of_addresses():
    announced = frozenset(map(ip_network, ["192.0.2.10/32", "192.0.2.9/32", "192.0.2.1/32"]))
    new = frozenset(map(ip_network, ["192.0.2.1/32", "2001:db8::1/128", "198.51.100.1/32", "192.0.2.200/32"]))
    assert commands(announced, new) == (
        "withdraw route 192.0.2.9/32 next-hop self",
        "withdraw route 192.0.2.10/32 next-hop self",
        "announce route 192.0.2.200/32 next-hop self",
        "announce route 198.51.100.1/32 next-hop self",
        "announce route 2001:db8::1/128 next-hop self",
    )


def test_no_difference_needs_no_command():
    assert commands(ROUTES, ROUTES) == ()


route_sets = st.frozensets(st.integers(0, 40).map(lambda i: ip_network(f"192.0.2.{i}/32")))


@properties
@given(route_sets, route_sets)
def test_a_speaker_that_obeys_ends_where_it_should(announced, new):
    speaker = set(announced)
    for command in commands(announced, new):
        verb, prefix = re.fullmatch(r"(announce|withdraw) route (\S+) next-hop self", command).groups()
        if verb == "announce":
            assert ip_network(prefix) not in speaker
            speaker.add(ip_network(prefix))
        else:
            speaker.remove(ip_network(prefix))
    assert speaker == new
