"""Whether routers spread flows evenly over Maglevs, and Maglevs over endpoints as their lookup tables say.

Counted are *flows*, not packets: packets of one flow go together, so a thousand packets of ten connections tell no more
than ten flows do, and chi-square on packets would refuse every balance there is. A router hashes each flow by a secret
of its kernel, and a Maglev by a CRC; for either, flows fall like dice (`statistics` has what that is worth).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from ..verdict import Verdict
from .statistics import FEWEST_EXPECTED, SIGNIFICANCE, Fit, fit

if TYPE_CHECKING:
    from ..connections import Connection
    from ..observe import Snapshot


def ecmp_balanced(before: Snapshot, after: Snapshot, significance: float = SIGNIFICANCE) -> Verdict:
    """Each router has spread the flows that began between two snapshots evenly over its next hops.

    The flows are the SYNs that the router's kernel counted on each Maglev's link: no Maglev is asked. Every router, and
    every set of Maglevs that serves VIPs of its own (a shard), has even shares for itself; all are judged as one.
    """
    claim = "ECMP spreads flows evenly over the Maglevs"
    fits, lines = [], []
    for name, router in after.routers.items():
        groups = _groups(after, name)
        if groups != _groups(before, name) or not _are_apart(groups):
            actual = f"{name} had next hops {_in_words(_groups(before, name))}, then {_in_words(groups)}"
            return Verdict(claim, False, "next hops that stay the same meanwhile", actual, look_at=_routes_of(name))
        flows = {to: count - before.routers[name].flows_to.get(to, 0) for to, count in router.flows_to.items()}
        strays = {to: count for to, count in flows.items() if count and not any(to in group for group in groups)}
        for group in groups:
            counts = {maglev: flows.get(maglev, 0) for maglev in sorted(group)} | strays
            fits.append(fit(counts, dict.fromkeys(sorted(group), 1 / len(group))))
            lines += [
                f"{name} to {to}: {_counted(count, fits[-1].expected.get(to, 0))}" for to, count in counts.items()
            ]
    where = "; ".join(_routes_of(name) for name in after.routers)
    return _verdict(claim, fits, lines, significance, where)


def endpoints_match_shares(
    flows: Mapping[str, int], shares: Mapping[str, float], significance: float = SIGNIFICANCE
) -> Verdict:
    """New flows were spread over endpoints as their shares of the lookup table say.

    `flows` counts flows by endpoint that began under this table (`flows_by_endpoint`); `shares` are the endpoints'
    shares of the table's slots (`Snapshot.table_shares`), both by the endpoints' names.
    """
    judged = fit(flows, shares)
    lines = [
        f"{name}: {_counted(flows.get(name, 0), judged.expected.get(name, 0))}; {shares.get(name, 0):.2%} of the slots"
        for name in sorted({*flows, *judged.expected})
    ]
    where = "the lookup tables (GET /tables of each Maglev), and which endpoints each finds healthy (GET /status)"
    return _verdict("endpoints get flows by their shares of the lookup table", [judged], lines, significance, where)


def flows_by_endpoint(connections: Iterable[Connection]) -> dict[str, int]:
    """Returns how many connections each endpoint answered."""
    return dict(Counter(connection.endpoint for connection in connections if connection.endpoint))


def _verdict(claim: str, fits: Collection[Fit], lines: Collection[str], significance: float, look_at: str) -> Verdict:
    """Returns the verdict on all fits as one; without enough flows to tell, the claim does not hold."""
    fewest = min((mean for each in fits for mean in each.expected.values()), default=0.0)
    if fewest < FEWEST_EXPECTED:
        expected = f"at least {FEWEST_EXPECTED} flows to be expected everywhere, or nothing can be told"
        return Verdict(claim, False, expected, f"{fewest:.1f} expected where there are fewest", tuple(lines), look_at)
    together = sum(fits, start=Fit(0.0, 0, 1.0, {}))
    return Verdict(
        claim,
        together.tail >= significance,
        f"what chance does at least once in {1 / significance:,.0f} times",
        f"chance is as far off {_how_often(together.tail)} "
        f"(chi-square {together.statistic:.2f}, {together.degrees} degrees of freedom)",
        tuple(lines),
        look_at,
    )


def _counted(flows: int, expected: float) -> str:
    return f"{flows} flows, expected {expected:.1f}"


def _how_often(tail: float) -> str:
    return f"once in {1 / tail:,.1f} times" if tail > 1e-12 else "never"


def _groups(snapshot: Snapshot, router: str) -> set[frozenset[str]]:
    """Returns the sets of Maglevs over which a router spreads some VIP."""
    view = snapshot.routers[router]
    return {frozenset(snapshot.names.get(hop, hop) for hop in hops) for hops in view.ecmp.values()}


def _are_apart(groups: Collection[frozenset[str]]) -> bool:
    return bool(groups) and sum(map(len, groups)) == len(frozenset[str]().union(*groups))


def _in_words(groups: Iterable[frozenset[str]]) -> str:
    return " and ".join(sorted("{" + ", ".join(sorted(group)) + "}" for group in groups)) or "none"


def _routes_of(router: str) -> str:
    return f"{router}: ip route show proto bird, birdc show route all, nft list counters"
