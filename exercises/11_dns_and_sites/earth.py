"""Where clients and sites are: cities, and prefixes with their places; how far it is from one to another, in space."""

from __future__ import annotations

import csv
import math
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from lab.classroom import Case
from maglev.geo import Place
from maglev.name_config import SHIPPED_LOCATIONS

ZURICH, NEW_YORK, TOKYO = Place(47.38, 8.54), Place(40.71, -74.01), Place(35.68, 139.69)
SYDNEY, SAO_PAULO, AUCKLAND = Place(-33.87, 151.21), Place(-23.55, -46.63), Place(-36.85, 174.76)
HONOLULU, QUITO = Place(21.31, -157.86), Place(-0.18, -78.47)
ROUNDED_UP = Place(-11.93, 34.95), Place(7.97, 38.64)  # haversines of these and their opposites come out above 1
CITIES = {"zurich": ZURICH, "new-york": NEW_YORK, "tokyo": TOKYO, "sydney": SYDNEY, "sao-paulo": SAO_PAULO,
          "auckland": AUCKLAND, "honolulu": HONOLULU, "quito": QUITO}  # fmt: skip


def a_table(case: Case, size: int = 8) -> dict[Any, Place]:
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
    return {network: anywhere(case) for network in ordered}


def inside(case: Case, network: Any) -> IPv4Address | IPv6Address:
    """Returns any address of a prefix."""
    return network[case.random.randrange(network.num_addresses)]  # type: ignore[no-any-return]


def anywhere(case: Case) -> Place:
    """Returns a place, on land or at sea."""
    return Place(round(case.random.uniform(-90, 90), 2), round(case.random.uniform(-180, 180), 2))


def shipped() -> list[tuple[str, IPv4Network, Place]]:
    """Returns the IPv4 prefixes of the table that is shipped, each with its place's name and where that is."""
    with open(SHIPPED_LOCATIONS, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if ":" not in row["prefix"]]
    return [
        (row["place"], IPv4Network(row["prefix"]), Place(float(row["latitude"]), float(row["longitude"])))
        for row in rows
    ]


def distance_km(one: Place, other: Place) -> float:
    """Returns the angle between two vectors from the Earth's centre, in kilometres on its surface."""
    a, b = _vector(one), _vector(other)
    across = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return 6371.0 * math.atan2(math.hypot(*across), sum(x * y for x, y in zip(a, b, strict=True)))


def _vector(place: Place) -> tuple[float, float, float]:
    up, round_ = math.radians(place.latitude), math.radians(place.longitude)
    return math.cos(up) * math.cos(round_), math.cos(up) * math.sin(round_), math.sin(up)
