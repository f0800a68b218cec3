"""Verdicts on a lab: pure functions of snapshots, timelines and reports of traffic.

    from lab import verify

    before = lab.snapshot()
    with lab.connections(300) as conns:
        lab.kill("m1")
        print(verify.withdrawn_within(lab.snapshot, "m1", within_s=1.0))
        conns.wait_settled()
    assert verify.connections_persist(conns.all())

Each returns a `Verdict` that says what was expected, what is, what shows it and where to look. A verdict with nothing
to judge (no connections, no packets, too few flows) does not hold: silence is no evidence. Nothing sleeps; what polls
takes the function that takes a snapshot, and has a deadline.
"""

from .balance import ecmp_balanced, endpoints_match_shares, flows_by_endpoint
from .choice import Change, change, disruption_within_theory, maglevs_choose_alike, weights_of
from .fates import connections_persist, only_the_doomed_died
from .loss import nothing_dropped, nothing_lost
from .moves import avoided, moved_within_theory, noticed
from .recorded import alike_again_within, dead_withdrawn_within
from .routing import announced_within, direct_server_return, withdrawn_within
from .statistics import SIGNIFICANCE

__all__ = [
    "SIGNIFICANCE",
    "Change",
    "alike_again_within",
    "announced_within",
    "avoided",
    "change",
    "connections_persist",
    "dead_withdrawn_within",
    "direct_server_return",
    "disruption_within_theory",
    "ecmp_balanced",
    "endpoints_match_shares",
    "flows_by_endpoint",
    "maglevs_choose_alike",
    "moved_within_theory",
    "nothing_dropped",
    "nothing_lost",
    "noticed",
    "only_the_doomed_died",
    "weights_of",
    "withdrawn_within",
]
