"""Judges the choice of a site (Maglev §2.1) by naive oracles: all prefixes tried, vectors in space, fractions, Scapy's
DNS; and last in a live name server, asked over the lab's own network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from typing import Any

from lab.classroom import Case, criterion
from lab.classroom.exercise import beside
from maglev.geo import Limits, Place
from maglev.name_answers import Subnet

earth, exact, asking = (beside(__file__, name) for name in ("earth", "exact", "asking"))

REFERENCE = ("maglev.geo", "maglev.name_answers")
LIVE = {"topology": "sites", "capacity_pps": 300, "ttl_s": 1}

CITIES = earth.CITIES
ZURICH, TOKYO, AUCKLAND, QUITO = earth.ZURICH, earth.TOKYO, earth.AUCKLAND, earth.QUITO
LIMITS = Limits(spill_from=0.7, full_at=0.95)
MANY_PREFIXES, MANY_LOOKUPS = 40_000, 20_000


# Step 1: where is a client?


@criterion(step=1, hint="several prefixes may cover an address: the longest says most about it")
def the_longest_prefix_counts(student: Any, case: Case) -> None:
    """An address is where the longest prefix that covers it says, in both families."""
    for _ in range(20):
        places = earth.a_table(case)
        case.step(f"a table of {', '.join(map(str, places))}")
        locations = student.Locations(places)
        for address in [*(earth.inside(case, network) for network in places), ip_address("198.51.100.1")]:
            covering = [network for network in places if address in network]
            best = max(covering, key=lambda network: network.prefixlen, default=None)
            got = case.call(locations.of, address)
            expected = best and (tuple(places[best]), best.prefixlen)
            case.expect(got and (tuple(got[0]), got[1]), expected, f"the place of {address}, and its prefix length")


@criterion(
    step=1, seconds=6, hint="a dictionary for each length that occurs; there are 33 lengths, and very many prefixes"
)
def many_prefixes_in_time(student: Any, case: Case) -> None:
    """20,000 addresses are found among 40,000 prefixes within 6 s."""
    numbers = case.random.sample(range(1 << 24), MANY_PREFIXES)
    places = {IPv4Network((number << 8, 24)): Place(number % 90, number % 180) for number in numbers}
    locations = student.Locations(places)
    case.step(f"a table of {MANY_PREFIXES:,} prefixes, asked {MANY_LOOKUPS:,} times")
    for number in case.random.choices(numbers, k=MANY_LOOKUPS):
        got = locations.of(IPv4Address((number << 8) + 7))
        case.expect(got and tuple(got[0]), (number % 90, number % 180), "the place of an address")


# Step 2: how far?


@criterion(step=2, hint="degrees are no kilometres, and east of 180 begins -180: use the haversine formula, in radians")
def distances(student: Any, case: Case) -> None:
    """Places are as far apart as great circles say, across the poles and the date line as well."""
    pairs = [(ZURICH, earth.NEW_YORK), (TOKYO, earth.HONOLULU), (AUCKLAND, earth.SAO_PAULO), (ZURICH, ZURICH)]
    opposite = (TOKYO, QUITO, AUCKLAND, *earth.ROUNDED_UP)
    pairs += [(place, Place(-place.latitude, place.longitude - 180)) for place in opposite]
    pairs += [(earth.anywhere(case), earth.anywhere(case)) for _ in range(200)]
    for one, other in pairs:
        got, expected = case.call(student.distance_km, one, other), earth.distance_km(one, other)
        case.expect_that(
            isinstance(got, float | int) and abs(got - expected) < 1, f"expected {expected:.0f} km, got {got!r}"
        )


@criterion(step=2, hint="sort by distance, then by name: sorted() of pairs does both")
def the_nearest_first(student: Any, case: Case) -> None:
    """Sites stand in the order of their distance; those as far away in the order of their names."""
    for client in [*CITIES.values(), *(earth.anywhere(case) for _ in range(20))]:
        sites = case.random.sample(sorted(CITIES.items()), 5)
        expected = sorted(dict(sites), key=lambda name: earth.distance_km(client, CITIES[name]))
        case.expect(list(case.call(student.by_distance, client, sites)), expected, "the sites, the nearest first")
    twins = [(name, ZURICH) for name in case.random.sample(["east", "north", "south", "west"], 4)]
    got = list(case.call(student.by_distance, TOKYO, twins))
    case.expect(got, ["east", "north", "south", "west"], "sites at the same place in the order of their names")


# Step 3: is there room?


@criterion(
    step=3, hint="three cases: below spill_from, from full_at on, and the line between; where do 1 and 0 belong?"
)
def a_site_takes_ever_fewer(student: Any, case: Case) -> None:
    """A site takes all its clients up to spill_from, none from full_at on, and in between ever fewer."""
    for load in (0.0, 0.69, 0.7, 0.75, 0.825, 0.9, 0.949, 0.95, 1.0, 7.5):
        got = case.call(student.taken, load, LIMITS)
        _expect_close(case, got, exact.taken(load, LIMITS), "the share of its clients")
    cliff = Limits(0.8, 0.8)
    for load in (0.79, 0.8, 0.81):
        _expect_close(case, case.call(student.taken, load, cliff), exact.taken(load, cliff), "the share, at a cliff,")


@criterion(step=3, hint="each site takes a share of what nearer ones have left, not of all; no share is 0")
def what_is_left_goes_on(student: Any, case: Case) -> None:
    """What a site does not take goes to the next, which takes its share of that."""
    for loads in (
        {},
        {"zurich": 0.825},
        {"zurich": 0.9, "new-york": 0.8},
        {"zurich": 0.99, "new-york": 0.9, "tokyo": 0.1},
        {"zurich": 2.0},
    ):
        _expect_shares(student, case, ["zurich", "new-york", "tokyo"], loads)
    case.expect(dict(case.call(student.shares, [], {}, LIMITS)), {}, "no shares without sites")


@criterion(step=3, hint="if something is left after the last site, who has it least hard? A client must go somewhere")
def nobody_is_turned_away(student: Any, case: Case) -> None:
    """What no site has room for goes to the least loaded: shares sum to 1, whatever the loads."""
    _expect_shares(student, case, ["zurich", "new-york", "tokyo"], {"zurich": 1.5, "new-york": 1.2, "tokyo": 1.3})
    _expect_shares(student, case, ["zurich", "new-york"], {"zurich": 1.5, "new-york": 0.9})
    for _ in range(100):
        order = case.random.sample(sorted(CITIES), case.random.randrange(1, 5))
        _expect_shares(student, case, order, {site: round(case.random.uniform(0, 1.3), 3) for site in order})


# Step 4: which one?


@criterion(step=4, hint="itertools.accumulate gives where each share ends; what if they end at 0.9999999999999999?")
def points_fall_on_shares(student: Any, case: Case) -> None:
    """Of points all over [0, 1), each site gets as many as its share says, and no point falls beside."""
    given = {"tokyo": 0.5, "zurich": 0.2, "new-york": 0.3}
    for point, expected in ((0.0, "tokyo"), (0.49, "tokyo"), (0.51, "zurich"), (0.69, "zurich"), (0.71, "new-york")):
        case.expect(case.call(student.choose, given, point), expected, "the site, in the order of the shares")
    counted = Counter(student.choose(given, (number + 0.5) / 1000) for number in range(1000))
    case.step("1,000 points, evenly spread")
    case.expect(dict(counted), {"tokyo": 500, "zurich": 200, "new-york": 300}, "how many each site gets")
    tenths = {f"site-{number}": 0.1 for number in range(10)}  # whose sum is 0.9999999999999999
    got = case.call(student.choose, tenths, math.nextafter(1, 0))
    case.expect(got, "site-9", "the last site at the last point")


@criterion(step=4, hint="one of the steps before is wrong in a way that only shows together: which client is it?")
def a_thousand_clients(student: Any, case: Case) -> None:
    """A thousand clients anywhere on Earth come to the site that all the steps together say, whatever the loads."""
    table = {network: earth.anywhere(case) for network in earth.a_table(case, 60)}
    locations, networks = student.Locations(table), list(table)
    for _ in range(1000):
        address = earth.inside(case, case.random.choice(networks))
        sites = case.random.sample(sorted(CITIES.items()), 3)
        loads = {name: round(case.random.uniform(0.5, 1.2), 2) for name, _ in sites}
        place = table[max((each for each in table if address in each), key=lambda each: each.prefixlen)]
        order = sorted(dict(sites), key=lambda name: earth.distance_km(place, CITIES[name]))
        expected, point = exact.drawn(case, exact.shares(order, loads, LIMITS))
        case.step(f"{address} is at {place.latitude:.1f}, {place.longitude:.1f}; loads {loads}; the point {point:.3f}")
        found = student.by_distance(locations.of(address)[0], sites)
        got = student.choose(student.shares(found, loads, LIMITS), point)
        case.expect(got, expected, "the site")


# Step 5: whose query is it?


@criterion(step=5, hint="a prefix of 20 bits needs 3 bytes of the address; the rest of it is zeros")
def a_resolver_tells_whose_query_it_is(student: Any, case: Case) -> None:
    """A client subnet as Scapy writes it is read: address and prefix length, in both families."""
    for family, network in asking.subnets(case):
        option = asking.written(family, network)
        got = case.call(student.client_subnet, option)
        expected = (network.network_address, network.prefixlen)
        case.expect(got and tuple(got), expected, "the address, and the length of its prefix")


@criterion(
    step=5, hint="read the sentence in client_subnet's docstring again: each clause is a query that somebody sends"
)
def malformed_subnets(student: Any, case: Case) -> None:
    """A client subnet that RFC 7871 does not allow is refused, whatever it is."""
    sound = bytes.fromhex("0001 18 00 0a0908")
    case.expect(tuple(case.call(student.client_subnet, sound)), (ip_address("10.9.8.0"), 24), "10.9.8.0/24")
    for why, text in (
        ("nothing", ""),
        ("cut short", "0001 18"),
        ("a family that there is not", "0003 18 00 0a0908"),
        ("a scope, in a query", "0001 18 18 0a0908"),
        ("fewer bytes than the prefix needs", "0001 18 00 0a09"),
        ("more bytes than the prefix needs", "0001 18 00 0a090800"),
        ("33 bits of IPv4", "0001 21 00 0a09080000"),
        ("a bit beyond the prefix", "0001 14 00 0a0908"),
    ):
        case.step(f"{why}: {text or 'no bytes'}")
        case.expect_error(ValueError, student.client_subnet, bytes.fromhex(text))


@criterion(
    step=5, hint="the answer repeats the query's subnet; its scope says for which clients a cache may use it again"
)
def an_answer_says_for_whom_it_holds(student: Any, case: Case) -> None:
    """An answer's client subnet repeats the query's, with the scope for which the answer holds."""
    for family, network in asking.subnets(case):
        scope = case.random.randrange(network.prefixlen + 1)
        subnet = Subnet(network.network_address, network.prefixlen)
        got = case.call(student.answered_subnet, subnet, scope)
        case.expect_that(isinstance(got, bytes), f"expected bytes, got {got!r}")
        expected = asking.written(family, network, scope)
        case.expect(got.hex(" "), expected.hex(" "), f"the option for {network}, scope {scope}")


# Step 6: live


@criterion(
    step=6,
    seconds=90,
    hint="maglab try 11, and ask it yourself: c1 dig +subnet=10.0.4.0/24 www.lab.example",
    lab={"topology": "sites", "sites": 2, "maglevs": 1, "endpoints": 1, "clients": 2, "capacity_pps": 300},
)
def clients_come_to_the_nearest_site_that_has_room(lab: Any, case: Case) -> None:
    """In a live name server: clients get the nearest site, and those of Zurich get New York while Zurich is full."""
    asker = asking.Asker(lab, case)
    for name, network, place in earth.shipped():
        nearest = min(("zurich", "new-york"), key=lambda site: earth.distance_km(place, CITIES[site]))
        asker.expect_all(network, nearest, f"{name}'s clients")
    home = ip_network("10.0.1.0/24")
    with lab.traffic.datagrams("datagrams", flows=20, rate_pps=600, seconds=60, clients=["c2"]):
        asker.expect_all(home, "new-york", "Zurich's clients, with twice as much to do as it can,", asking.BUSY)
    asker.expect_all(home, "zurich", "Zurich's clients, since it has room again,")


# What is expected of shares


def _expect_shares(student: Any, case: Case, order: Sequence[str], loads: Mapping[str, float]) -> None:
    got = case.call(student.shares, order, loads, LIMITS)
    expected = {site: round(float(share), 6) for site, share in exact.shares(order, loads, LIMITS).items()}
    rounded = {site: round(float(share), 6) for site, share in got.items()}
    case.expect(rounded, expected, "the shares")
    case.expect([*got], [*expected], "the shares, the nearest site's first")


def _expect_close(case: Case, got: Any, expected: Fraction, what: str) -> None:
    close = isinstance(got, float | int) and abs(got - float(expected)) < 1e-9
    case.expect_that(close, f"expected {what} to be {float(expected):g}, got {got!r}")
