"""Judges the choice of a site (Maglev §2.1) by naive oracles: all prefixes tried, vectors in space, fractions, Scapy's
DNS; and last in a live name server, asked over the lab's own network."""

from __future__ import annotations

import csv
import math
import select
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from scapy.compat import raw
from scapy.layers.dns import DNS, DNSQR, DNSRROPT, EDNS0ClientSubnet

from lab.classroom import Case, criterion
from lab.errors import LabError
from lab.namespace import within
from lab.waiting import wait_until
from maglev.engine.control import request
from maglev.geo import Limits, Place
from maglev.name_answers import Subnet
from maglev.name_config import SHIPPED_LOCATIONS

REFERENCE = ("maglev.geo", "maglev.name_answers")
LIVE = {"topology": "sites", "capacity_pps": 300, "ttl_s": 1}

ZURICH, NEW_YORK, TOKYO = Place(47.38, 8.54), Place(40.71, -74.01), Place(35.68, 139.69)
SYDNEY, SAO_PAULO, AUCKLAND = Place(-33.87, 151.21), Place(-23.55, -46.63), Place(-36.85, 174.76)
HONOLULU, QUITO = Place(21.31, -157.86), Place(-0.18, -78.47)
ROUNDED_UP = Place(-11.93, 34.95), Place(7.97, 38.64)  # haversines of these and their opposites come out above 1
CITIES = {"zurich": ZURICH, "new-york": NEW_YORK, "tokyo": TOKYO, "sydney": SYDNEY, "sao-paulo": SAO_PAULO,
          "auckland": AUCKLAND, "honolulu": HONOLULU, "quito": QUITO}  # fmt: skip
LIMITS = Limits(spill_from=0.7, full_at=0.95)
MANY_PREFIXES, MANY_LOOKUPS = 40_000, 20_000
IDLE, BUSY = (0.0, 0.5), (1.2, 99.0)  # loads
QUERIES, PATIENCE_S, ANSWER_S = 20, 20.0, 5.0


# Step 1: where is a client?


@criterion(step=1, hint="several prefixes may cover an address: the longest says most about it")
def the_longest_prefix_counts(student: Any, case: Case) -> None:
    """An address is where the longest prefix that covers it says, in both families."""
    for _ in range(20):
        places = _table(case)
        case.step(f"a table of {', '.join(map(str, places))}")
        locations = student.Locations(places)
        for address in [*(_inside(case, network) for network in places), ip_address("198.51.100.1")]:
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
    pairs = [(ZURICH, NEW_YORK), (TOKYO, HONOLULU), (AUCKLAND, SAO_PAULO), (ZURICH, ZURICH)]
    pairs += [(place, Place(-place.latitude, place.longitude - 180)) for place in (TOKYO, QUITO, AUCKLAND, *ROUNDED_UP)]
    pairs += [(_anywhere(case), _anywhere(case)) for _ in range(200)]
    for one, other in pairs:
        got, expected = case.call(student.distance_km, one, other), _distance_km(one, other)
        case.expect_that(
            isinstance(got, float | int) and abs(got - expected) < 1, f"expected {expected:.0f} km, got {got!r}"
        )


@criterion(step=2, hint="sort by distance, then by name: sorted() of pairs does both")
def the_nearest_first(student: Any, case: Case) -> None:
    """Sites stand in the order of their distance; those as far away in the order of their names."""
    for client in [*CITIES.values(), *(_anywhere(case) for _ in range(20))]:
        sites = case.random.sample(sorted(CITIES.items()), 5)
        expected = sorted(dict(sites), key=lambda name: _distance_km(client, CITIES[name]))
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
        _expect_close(case, case.call(student.taken, load, LIMITS), _taken(load, LIMITS), "the share of its clients")
    cliff = Limits(0.8, 0.8)
    for load in (0.79, 0.8, 0.81):
        _expect_close(case, case.call(student.taken, load, cliff), _taken(load, cliff), "the share, at a cliff,")


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
    table = {network: _anywhere(case) for network in _table(case, 60)}
    locations, networks = student.Locations(table), list(table)
    for _ in range(1000):
        address = _inside(case, case.random.choice(networks))
        sites = case.random.sample(sorted(CITIES.items()), 3)
        loads = {name: round(case.random.uniform(0.5, 1.2), 2) for name, _ in sites}
        place = table[max((each for each in table if address in each), key=lambda each: each.prefixlen)]
        order = sorted(dict(sites), key=lambda name: _distance_km(place, CITIES[name]))
        expected, point = _drawn(case, _shares(order, loads, LIMITS))
        case.step(f"{address} is at {place.latitude:.1f}, {place.longitude:.1f}; loads {loads}; the point {point:.3f}")
        found = student.by_distance(locations.of(address)[0], sites)
        got = student.choose(student.shares(found, loads, LIMITS), point)
        case.expect(got, expected, "the site")


# Step 5: whose query is it?


@criterion(step=5, hint="a prefix of 20 bits needs 3 bytes of the address; the rest of it is zeros")
def a_resolver_tells_whose_query_it_is(student: Any, case: Case) -> None:
    """A client subnet as Scapy writes it is read: address and prefix length, in both families."""
    for family, network in _subnets(case):
        option = _written(family, network)
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
    for family, network in _subnets(case):
        scope = case.random.randrange(network.prefixlen + 1)
        subnet = Subnet(network.network_address, network.prefixlen)
        got = case.call(student.answered_subnet, subnet, scope)
        case.expect_that(isinstance(got, bytes), f"expected bytes, got {got!r}")
        case.expect(got.hex(" "), _written(family, network, scope).hex(" "), f"the option for {network}, scope {scope}")


# Step 6: live


@criterion(
    step=6,
    seconds=90,
    hint="maglab try 11, and ask it yourself: c1 dig +subnet=10.0.4.0/24 www.lab.example",
    lab={"topology": "sites", "sites": 2, "maglevs": 1, "endpoints": 1, "clients": 2, "capacity_pps": 300},
)
def clients_come_to_the_nearest_site_that_has_room(lab: Any, case: Case) -> None:
    """In a live name server: clients get the nearest site, and those of Zurich get New York while Zurich is full."""
    asker = Asker(lab, case)
    for name, network, place in _shipped():
        nearest = min(("zurich", "new-york"), key=lambda site: _distance_km(place, CITIES[site]))
        asker.expect_all(network, nearest, f"{name}'s clients")
    home = ip_network("10.0.1.0/24")
    with lab.traffic.datagrams("datagrams", flows=20, rate_pps=600, seconds=60, clients=["c2"]):
        asker.expect_all(home, "new-york", "Zurich's clients, with twice as much to do as it can,", BUSY)
    asker.expect_all(home, "zurich", "Zurich's clients, since it has room again,")


class Asker:
    """Asks the name server from a client's network, and tells what it says."""

    def __init__(self, lab: Any, case: Case) -> None:
        self.lab, self.case = lab, case
        self.server = lab.node("ns1")
        self.socket = within(lab.node("c1").pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.socket.connect((self.server.address, 53))
        self.sites = {"192.0.2.17": "zurich", "192.0.2.33": "new-york"}

    def expect_all(self, network: Any, site: str, whose: str, zurich: tuple[float, float] = IDLE) -> None:
        """Asks some times for a network's clients while Zurich has a load within limits; expects always one site."""
        self.wait_for(zurich)
        counted = self.count(network)
        while self.amiss(zurich):  # it was otherwise, meanwhile: that says nothing
            self.wait_for(zurich)
            counted = self.count(network)
        loads = {name: round(load, 2) for name, load in self.status()["loads"].items()}
        self.case.step(f"asked {QUERIES} times for {network}, loads {loads}: {dict(counted)}")
        self.case.expect(dict(counted), {site: QUERIES}, f"where {whose} are sent")

    def count(self, network: Any) -> Counter[str]:
        """Returns how often each site is the answer."""
        return Counter(self.ask(network) for _ in range(QUERIES))

    def ask(self, network: Any) -> str:
        """Returns the site whose address is the answer; Wrong if there is no answer that counts."""
        number = self.case.random.randrange(1 << 16)
        told = EDNS0ClientSubnet(source_plen=network.prefixlen, address=str(network.network_address))
        question = DNSQR(qname="www.lab.example", qtype="A")
        self.socket.send(raw(DNS(id=number, rd=0, qd=question, ar=DNSRROPT(rclass=1232, rdata=[told]))))
        if not select.select([self.socket], [], [], ANSWER_S)[0]:
            raise LabError(f"the name server does not answer: {self._last_words()}")
        answer = DNS(self.socket.recv(4096))
        if answer.id != number or answer.rcode or not answer.ancount:
            self.case.wrong(f"expected an address for a client in {network}, got {answer.summary()}")
        return self.sites.get(answer.an[0].rdata, answer.an[0].rdata)

    def wait_for(self, zurich: tuple[float, float]) -> None:
        """Waits until the name server believes what it should of the sites."""
        wait_until(lambda: self.amiss(zurich), PATIENCE_S, f"a load of Zurich from {zurich[0]:g} to {zurich[1]:g}")

    def amiss(self, zurich: tuple[float, float]) -> str:
        """Returns what the name server does not believe: that all VIPs serve, Zurich's load, New York without one."""
        status = self.status()
        if not all(status["vips"]["www"].values()):
            return f"the VIPs that serve are {status['vips']['www']}"
        for site, (least, most) in (("zurich", zurich), ("new-york", IDLE)):
            if not least <= (load := status["loads"].get(site, math.nan)) <= most:
                return f"{site} has a load of {load:.2f}"
        return ""

    def status(self) -> Mapping[str, Any]:
        """Returns what the name server says of itself."""
        return request(self.server.control, "GET", "/status")

    def _last_words(self) -> str:
        """Returns the last error in its log, which is a student's."""
        lines = (self.server.directory / "nameserver.log").read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if "Error" in line), "it said nothing")


# Oracles: slow, and plain to see


def _table(case: Case, size: int = 8) -> dict[Any, Place]:
    """Returns prefixes inside each other, of both families, in any order."""
    networks: set[Any] = set()
    while len(networks) < size:
        if case.random.random() < 0.5:
            length = case.random.choice([8, 12, 16, 20, 24, 32])
            number = 10 << 24 | case.random.getrandbits(4) << 16 | case.random.getrandbits(4) << 8
            networks.add(IPv4Network((number, length), strict=False))
        else:
            length = case.random.choice([32, 48, 56, 64])
            number = 0xFD00 << 112 | case.random.getrandbits(4) << 80 | case.random.getrandbits(4) << 64
            networks.add(IPv6Network((number, length), strict=False))
    ordered = sorted(networks, key=str)
    case.random.shuffle(ordered)
    return {network: _anywhere(case) for network in ordered}


def _inside(case: Case, network: Any) -> IPv4Address | IPv6Address:
    return network[case.random.randrange(network.num_addresses)]  # type: ignore[no-any-return]


def _anywhere(case: Case) -> Place:
    return Place(round(case.random.uniform(-90, 90), 2), round(case.random.uniform(-180, 180), 2))


def _distance_km(one: Place, other: Place) -> float:
    """Returns the angle between two vectors from the Earth's centre, in kilometres on its surface."""
    a, b = _vector(one), _vector(other)
    across = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return 6371.0 * math.atan2(math.hypot(*across), sum(x * y for x, y in zip(a, b, strict=True)))


def _vector(place: Place) -> tuple[float, float, float]:
    up, round_ = math.radians(place.latitude), math.radians(place.longitude)
    return math.cos(up) * math.cos(round_), math.cos(up) * math.sin(round_), math.sin(up)


def _taken(load: float, limits: Limits) -> Fraction:
    at, begins, ends = (Fraction(str(each)) for each in (load, *limits))
    if at >= ends:
        return Fraction(0)
    return min(Fraction(1), (ends - at) / (ends - begins)) if ends > begins else Fraction(1)


def _shares(order: Sequence[str], loads: Mapping[str, float], limits: Limits) -> dict[str, Fraction]:
    """Returns exact shares, nobody's left out."""
    rest, found = Fraction(1), dict.fromkeys(order, Fraction(0))
    for site in order:
        found[site] = rest * _taken(loads.get(site, 0.0), limits)
        rest -= found[site]
    if rest:
        found[min(order, key=lambda site: (loads.get(site, 0.0), order.index(site)))] += rest
    return {site: share for site, share in found.items() if share}


def _drawn(case: Case, given: Mapping[str, Fraction]) -> tuple[str, float]:
    """Returns a site, and a point on its share that is not at its very edge."""
    at, ends = Fraction(0), {}
    for site, share in given.items():
        ends[site], at = (at, at + share), at + share
    site = case.random.choices(list(given), [float(share) for share in given.values()])[0]
    begins, ends_at = ends[site]
    return site, float(begins + (ends_at - begins) * Fraction(case.random.randrange(1, 100), 100))


def _expect_shares(student: Any, case: Case, order: Sequence[str], loads: Mapping[str, float]) -> None:
    got = case.call(student.shares, order, loads, LIMITS)
    expected = {site: round(float(share), 6) for site, share in _shares(order, loads, LIMITS).items()}
    rounded = {site: round(float(share), 6) for site, share in got.items()}
    case.expect(rounded, expected, "the shares")
    case.expect([*got], [*expected], "the shares, the nearest site's first")


def _expect_close(case: Case, got: Any, expected: Fraction, what: str) -> None:
    close = isinstance(got, float | int) and abs(got - float(expected)) < 1e-9
    case.expect_that(close, f"expected {what} to be {float(expected):g}, got {got!r}")


def _subnets(case: Case) -> list[tuple[int, Any]]:
    """Returns prefixes and the numbers of their families; Scapy cannot write the one of no bits."""
    found: list[tuple[int, Any]] = [(1, ip_network("10.0.1.0/24")), (2, ip_network("2001:db8::/56"))]
    for length in (1, 7, 8, 9, 20, 31, 32):
        found.append((1, IPv4Network((case.random.getrandbits(32), length), strict=False)))
    for length in (1, 33, 48, 63, 64, 128):
        found.append((2, IPv6Network((case.random.getrandbits(128), length), strict=False)))
    return found


def _written(family: int, network: Any, scope: int = 0) -> bytes:
    """Returns an option's content as Scapy writes it, without the option's own number and length."""
    address = str(network.network_address)
    option = EDNS0ClientSubnet(family=family, source_plen=network.prefixlen, scope_plen=scope, address=address)
    return raw(option)[4:]


def _shipped() -> list[tuple[str, IPv4Network, Place]]:
    with open(SHIPPED_LOCATIONS, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if ":" not in row["prefix"]]
    return [
        (row["place"], IPv4Network(row["prefix"]), Place(float(row["latitude"]), float(row["longitude"])))
        for row in rows
    ]
