"""Verdicts on where flows went: to which Maglevs after a change of the routers, and to which endpoints not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..verdict import Verdict
from .fates import shown
from .statistics import SIGNIFICANCE, most_likely

if TYPE_CHECKING:
    from ..connections import Connection


def moved_within_theory(moved: int, flows: int, share: float, significance: float = SIGNIFICANCE) -> Verdict:
    """No more of the flows came to another Maglev than a change of next hops moves, within a binomial bound.

    `share` is what moves in theory (`maglev.ecmp`); flows fall on it independently.
    """
    bound = most_likely(flows, share, significance)
    return Verdict(
        "routers move no more flows than they must",
        bool(flows) and moved <= bound,
        f"at most {bound} of {flows}: {share:.1%} must move, and chance goes further than that less than once in "
        f"{1 / significance:,.0f} times",
        f"{moved} came to another Maglev",
        look_at="the router's routes and next-hop groups (ip route, ip nexthop)",
    )


def avoided(connections: Sequence[Connection], endpoint: str) -> Verdict:
    """None of the connections reached an endpoint, and there are some that reached others."""
    reached = [connection for connection in connections if connection.endpoint == endpoint]
    return Verdict(
        f"no new connection goes to {endpoint}",
        bool(connections) and not reached,
        f"none of {len(connections)} connections reach {endpoint}",
        f"{len(reached)} do",
        shown([connection.name for connection in reached]),
        f"the weight of {endpoint} in each Maglev's lookup table (GET /status: drained)",
    )


def noticed(verdict: Verdict, claim: str) -> Verdict:
    """What another verdict says is amiss: holds if that one does not."""
    return Verdict(claim, not verdict, f"it is seen that not: {verdict.claim}", verdict.actual, verdict.evidence)
