"""Which site serves a client: the nearest that has room (Maglev §2.1, figure 1: DNS picks a VIP by location and load).

Pure: where clients and sites are, and how the sites do, in; shares and a choice out. `name_answers` says it in DNS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import accumulate
from typing import NamedTuple

from .flow import Address

Network = IPv4Network | IPv6Network

EARTH_RADIUS_KM = 6371.0  # mean (IUGG)


class Place(NamedTuple):
    """A point on Earth, in degrees; north and east are positive."""

    latitude: float
    longitude: float


class Located(NamedTuple):
    """What a table of prefixes says of an address."""

    place: Place
    prefix_length: int  # of the prefix that said so: it holds for all of that


class Locations:
    """Prefixes and where their addresses are; the longest prefix counts."""

    def __init__(self, places: Mapping[Network, Place]) -> None:
        self._by_length: dict[tuple[int, int], dict[int, Place]] = {}
        for network, place in places.items():
            length = network.prefixlen
            number = int(network.network_address) >> (network.max_prefixlen - length)
            self._by_length.setdefault((network.version, length), {})[number] = place
        self._lengths = sorted(self._by_length, reverse=True)

    def of(self, address: Address) -> Located | None:
        """Returns where an address is, None if no prefix covers it."""
        for version, length in self._lengths:
            if version == address.version:
                number = int(address) >> (address.max_prefixlen - length)
                if place := self._by_length[version, length].get(number):
                    return Located(place, length)
        return None


def distance_km(one: Place, other: Place) -> float:
    """Returns the great-circle distance of two places (haversine formula)."""
    latitudes = math.radians(one.latitude), math.radians(other.latitude)
    half = math.radians(one.longitude - other.longitude) / 2
    chord = (
        math.sin((latitudes[0] - latitudes[1]) / 2) ** 2
        + math.cos(latitudes[0]) * math.cos(latitudes[1]) * math.sin(half) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, chord)))


class Limits(NamedTuple):
    """How a site's load turns clients away, as shares of its capacity."""

    spill_from: float  # it takes all of its own clients up to here
    full_at: float  # and none from here on; in between ever fewer


def taken(load: float, limits: Limits) -> float:
    """Returns the share of the clients next to it that a site with this load takes, from 1 to 0."""
    if load < limits.spill_from:
        return 1.0
    if load >= limits.full_at:
        return 0.0
    return (limits.full_at - load) / (limits.full_at - limits.spill_from)


def shares(nearest_first: Sequence[str], loads: Mapping[str, float], limits: Limits) -> dict[str, float]:
    """Returns what share of its clients goes to each site; they sum to 1, and a site with none is left out.

    Each site takes its share of those that nearer ones have left. What none has room for goes to the least loaded:
    nobody is sent away while some site serves. Sites without a known load count as idle. No sites: nothing.
    """
    result: dict[str, float] = {}
    rest = 1.0
    for site in nearest_first:
        result[site] = rest * taken(loads.get(site, 0.0), limits)
        rest -= result[site]
    if rest > 0 and nearest_first:
        least = min(nearest_first, key=lambda site: loads.get(site, 0.0))
        result[least] += rest
    return {site: share for site, share in result.items() if share > 0}


def choose(given: Mapping[str, float], point: float) -> str:
    """Returns the site at a point in [0, 1) of all shares, side by side; they may not be empty."""
    ends = accumulate(given.values())
    return next((site for site, end in zip(given, ends, strict=True) if point < end), list(given)[-1])


def by_distance(place: Place, sites: Iterable[tuple[str, Place]]) -> list[str]:
    """Returns sites, the nearest first; those as far away stand in the order of their names."""
    return [name for _, name in sorted((distance_km(place, there), name) for name, there in sites)]
