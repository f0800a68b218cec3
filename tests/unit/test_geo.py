"""Which site serves a client: distance, room, and where the rest goes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maglev.geo import Limits, Locations, Place, by_distance, choose, distance_km, shares, taken

ZURICH, TOKYO, NEW_YORK = Place(47.38, 8.54), Place(35.68, 139.69), Place(40.71, -74.01)
LIMITS = Limits(0.6, 0.8)

places = st.builds(Place, st.floats(-90, 90), st.floats(-180, 180))
loads = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 3))
orders = st.permutations("abcd").flatmap(lambda order: st.integers(1, 4).map(lambda n: list(order)[:n]))


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [
        (ZURICH, NEW_YORK, 6325),  # as atlases have it, within half a per cent
        (ZURICH, TOKYO, 9590),
        (Place(0, 179.5), Place(0, -179.5), 111),  # over the date line
        (Place(90, 0), Place(-90, 50), 20015),
        (ZURICH, ZURICH, 0),
    ],
)
def test_distances_are_those_of_an_atlas(one, other, km):
    assert distance_km(one, other) == pytest.approx(km, rel=0.005, abs=0.5)


@given(places, places, places)
def test_distance_is_a_metric(a, b, c):
    assert distance_km(a, b) == pytest.approx(distance_km(b, a))
    metres = 0.1  # that the haversine formula is out at antipodes
    assert distance_km(a, c) <= distance_km(a, b) + distance_km(b, c) + metres


def test_the_longest_prefix_says_where_an_address_is():
    locations = Locations({
        ip_network("10.0.0.0/8"): ZURICH,
        ip_network("10.0.2.0/24"): NEW_YORK,
        ip_network("fd00::/16"): TOKYO,
    })  # fmt: skip
    assert locations.of(ip_address("10.0.2.7")) == (NEW_YORK, 24)
    assert locations.of(ip_address("10.0.3.7")) == (ZURICH, 8)
    assert locations.of(ip_address("fd00::1")) == (TOKYO, 16)
    assert locations.of(ip_address("192.0.2.1")) is None


def test_sites_stand_by_distance_then_by_name():
    sites = [("z", ZURICH), ("t", TOKYO), ("a", ZURICH)]
    assert by_distance(NEW_YORK, sites) == ["a", "z", "t"]


@pytest.mark.parametrize(
    ("load", "share"), [(0.0, 1.0), (0.59, 1.0), (0.6, 1.0), (0.7, 0.5), (0.75, 0.25), (0.8, 0.0), (5.0, 0.0)]
)
def test_a_site_takes_fewer_as_it_fills(load, share):
    assert taken(load, LIMITS) == pytest.approx(share)


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ({}, {"near": 1.0}),
        ({"near": 0.7}, {"near": 0.5, "far": 0.5}),
        ({"near": 0.9}, {"far": 1.0}),
        ({"near": 0.9, "far": 0.7}, {"far": 1.0}),  # half of it is not room, but nobody is sent away
        ({"near": 0.9, "far": 1.2}, {"near": 1.0}),  # none has room: the less loaded
        ({"near": 0.75, "far": 0.75}, {"near": 0.25 + 0.5625, "far": 0.1875}),
    ],
)
def test_what_the_nearest_has_no_room_for_goes_on(loads, expected):
    assert shares(["near", "far"], loads, LIMITS) == pytest.approx(expected)


@given(orders, loads)
def test_all_clients_are_given_to_somebody(order, loads):
    given = shares(order, loads, LIMITS)
    assert sum(given.values()) == pytest.approx(1)
    assert set(given) <= set(order)
    assert all(share > 0 for share in given.values())


@given(orders, loads, st.floats(0, 1, exclude_max=True))
def test_every_point_belongs_to_a_site_with_a_share(order, loads, point):
    given = shares(order, loads, LIMITS)
    assert choose(given, point) in given


def test_points_fall_on_sites_by_their_shares():
    given = {"near": 0.25, "far": 0.75}
    assert [choose(given, point / 8) for point in range(8)] == ["near"] * 2 + ["far"] * 6


def test_no_site_no_share():
    assert shares([], {}, LIMITS) == {}
