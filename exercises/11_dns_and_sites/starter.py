"""Exercise 11: which site serves a client, by location and load. Your code; `maglab check 11` judges it.

The names are those of `maglev.geo` and `maglev.name_answers`, with the same arguments, so that a lab's name server can
run with yours in their place. Nothing here looks at a clock, a socket or dice: all that counts is given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from maglev.flow import Address  # IPv4Address or IPv6Address
from maglev.geo import EARTH_RADIUS_KM, Limits, Located, Network, Place  # 6371.0; Limits(spill_from, full_at), …
from maglev.name_answers import Subnet  # Subnet(address, prefix_length)


class Locations:
    """Prefixes and where their addresses are; the longest prefix counts."""

    def __init__(self, places: Mapping[Network, Place]) -> None:
        self.places = dict(places)  # use it, or anything else: tables of a million prefixes are usual

    def of(self, address: Address) -> Located | None:
        """Returns where an address is, and the length of the prefix that says so; None if no prefix covers it."""
        raise NotImplementedError("step 1: find the longest prefix that covers an address")


def distance_km(one: Place, other: Place) -> float:
    """Returns the great-circle distance of two places, given by latitude and longitude in degrees."""
    raise NotImplementedError("step 2: compute how far two places are apart, on a sphere")


def by_distance(place: Place, sites: Iterable[tuple[str, Place]]) -> list[str]:
    """Returns the names of sites, the nearest first; those as far away stand in the order of their names."""
    raise NotImplementedError("step 2: sort sites by their distance from a place")


def taken(load: float, limits: Limits) -> float:
    """Returns the share of the clients next to it that a site with this load takes, from 1 to 0.

    All of them below `limits.spill_from`, none from `limits.full_at` on, and in between on a straight line.
    """
    raise NotImplementedError("step 3: compute how many of its own clients a site takes")


def shares(nearest_first: Sequence[str], loads: Mapping[str, float], limits: Limits) -> dict[str, float]:
    """Returns what share of a place's clients goes to each site; they sum to 1, and a site with none is left out.

    Each site takes its share (`taken`) of those that nearer ones have left. What none has room for goes to the least
    loaded, the nearest of these. A site whose load is not known counts as idle. No sites: no shares.
    """
    raise NotImplementedError("step 3: give what one site does not take to the next")


def choose(given: Mapping[str, float], point: float) -> str:
    """Returns the site at a point in [0, 1), if all shares are laid side by side, in their order.

    Sums of fractions may fall short of 1 by a hair: the last site takes what is beyond.
    """
    raise NotImplementedError("step 4: find the share on which a point falls")


def client_subnet(option: bytes) -> Subnet:
    """Reads whose query it is (RFC 7871 §6): what a resolver tells of its client.

    Two bytes family (1 is IPv4, 2 is IPv6), one byte prefix length, one byte scope, which is 0 in queries; then as many
    bytes of the address as the prefix needs, no more and no less, and bits beyond the prefix are 0. ValueError for
    anything else: too short, another family, a scope, a longer prefix than an address has, …
    """
    raise NotImplementedError("step 5: read a client subnet")


def answered_subnet(subnet: Subnet, scope: int) -> bytes:
    """Returns the option of an answer: the query's, with the prefix length for which the answer holds as its scope."""
    raise NotImplementedError("step 5: write a client subnet")
