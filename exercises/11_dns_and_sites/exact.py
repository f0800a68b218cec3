"""Which share of its clients a site takes, exactly: in fractions, with nobody left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from lab.classroom import Case
from maglev.geo import Limits


def taken(load: float, limits: Limits) -> Fraction:
    """Returns the share that a site takes of those who come to it, at a load."""
    at, begins, ends = (Fraction(str(each)) for each in (load, *limits))
    if at >= ends:
        return Fraction(0)
    return min(Fraction(1), (ends - at) / (ends - begins)) if ends > begins else Fraction(1)


def shares(order: Sequence[str], loads: Mapping[str, float], limits: Limits) -> dict[str, Fraction]:
    """Returns exact shares, nobody's left out."""
    rest, found = Fraction(1), dict.fromkeys(order, Fraction(0))
    for site in order:
        found[site] = rest * taken(loads.get(site, 0.0), limits)
        rest -= found[site]
    if rest:
        found[min(order, key=lambda site: (loads.get(site, 0.0), order.index(site)))] += rest
    return {site: share for site, share in found.items() if share}


def drawn(case: Case, given: Mapping[str, Fraction]) -> tuple[str, float]:
    """Returns a site, and a point on its share that is not at its very edge."""
    at, ends = Fraction(0), {}
    for site, share in given.items():
        ends[site], at = (at, at + share), at + share
    site = case.random.choices(list(given), [float(share) for share in given.values()])[0]
    begins, ends_at = ends[site]
    return site, float(begins + (ends_at - begins) * Fraction(case.random.randrange(1, 100), 100))
