"""Verdicts on synthetic snapshots: each holds where it should, and fails, with evidence, where it should not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

pytest.importorskip("mininet.net", reason="the laboratory needs Debian's package mininet")

from snapshots import VIP, connection, maglev, router, snapshot

from lab import verify
from lab.observe import RouterView
from lab.verdict import Verdict
from maglev.hashing import lookup_table

ALL = ("m1", "m2", "m3")


def test_connections_persist() -> None:
    assert verify.connections_persist([connection(1), connection(2, "closed")])
    assert not verify.connections_persist([]), "nobody was there to persist"


@pytest.mark.parametrize("fate", ["reset", "stalled", "refused", "garbled"])
def test_one_broken_connection_is_named_with_its_fate_and_where_to_look(fate: str) -> None:
    verdict = verify.connections_persist([connection(1), connection(2, fate)])
    assert not verdict
    assert verdict.evidence == (f"c1/2: {fate} after 17 messages with s1",)
    assert verdict.look_at


def test_evidence_is_short_however_much_broke() -> None:
    verdict = verify.connections_persist([connection(number, "reset") for number in range(500)])
    assert "500 of 500 broke (500 reset)" in str(verdict)
    assert len(verdict.evidence) == 21
    assert verdict.evidence[-1] == "and 480 more"


def test_only_the_doomed_died() -> None:
    connections = [connection(1), connection(2, "reset", "s4"), connection(3, "reset", "s2"), connection(4, "closed")]
    assert verify.only_the_doomed_died(connections, {"s4", "c1/3"})
    innocent = verify.only_the_doomed_died(connections, {"s4"})
    assert not innocent
    assert innocent.evidence == ("c1/3: reset after 17 messages with s2",)


def test_who_had_to_die_and_lived_shows_that_the_fault_was_none() -> None:
    connections = [connection(1), connection(2, "alive", "s4")]
    assert not verify.only_the_doomed_died(connections, {"s4"})
    assert verify.only_the_doomed_died(connections, {"s4"}, all_of_them=False)


def test_what_was_broken_before_is_not_held_against_an_event() -> None:
    before = [connection(1), connection(2, "reset")]
    assert verify.only_the_doomed_died([connection(1), connection(2, "reset")], (), before)
    assert not verify.only_the_doomed_died([connection(1, "reset"), connection(2, "reset")], (), before)


def flows(**counts: int) -> dict[str, int]:
    return counts


def ecmp(hops: tuple[str, ...] = ALL, **counts: int) -> Verdict:
    before = snapshot(router(hops, flows(m1=7, m2=0, m3=1000)))
    counted = {name: before.routers["r1"].flows_to[name] + counts.get(name, 0) for name in ALL}
    return verify.ecmp_balanced(before, snapshot(router(hops, counted)))


def test_ecmp_is_balanced_within_what_chance_does() -> None:
    assert ecmp(m1=95, m2=103, m3=102)
    assert not ecmp(m1=60, m2=120, m3=120)


def test_ecmp_verdicts_are_wrong_as_seldom_as_stated_and_find_a_skew() -> None:
    dice = np.random.default_rng(34)
    fair = dice.multinomial(300, [1 / 3] * 3, size=3000)
    skewed = dice.multinomial(300, [0.2, 0.4, 0.4], size=200)
    refused = sum(not ecmp(**dict(zip(ALL, map(int, sample), strict=True))) for sample in fair)
    found = sum(not ecmp(**dict(zip(ALL, map(int, sample), strict=True))) for sample in skewed)
    assert refused <= 3, f"{refused} of 3,000 fair samples refused, at 1 in 10,000"
    assert found >= 150, f"only {found} of 200 samples were found in which a Maglev gets a fifth instead of a third"


@pytest.mark.parametrize(
    ("case", "counts"), [(ALL, {}), (ALL, {"m1": 4, "m2": 5, "m3": 4}), (("m1", "m2"), {"m1": 50, "m2": 50, "m3": 1})]
)
def test_ecmp_does_not_hold_without_enough_flows_or_with_flows_to_a_stranger(
    case: tuple[str, ...], counts: dict[str, int]
) -> None:
    assert not ecmp(case, **counts)


def test_ecmp_cannot_be_judged_while_next_hops_change() -> None:
    verdict = verify.ecmp_balanced(snapshot(router(ALL)), snapshot(router(("m1", "m2"), flows(m1=50, m2=50))))
    assert not verdict
    assert "r1 had next hops {m1, m2, m3}, then {m1, m2}" in verdict.actual


def test_every_router_is_balanced_for_itself() -> None:
    """Two routers that each prefer another Maglev look even together, and are not."""
    before = snapshot({name: router(("m1", "m2")) for name in ("r1", "r2")})
    skewed = {"r1": router(("m1", "m2"), flows(m1=90, m2=10)), "r2": router(("m1", "m2"), flows(m1=10, m2=90))}
    assert not verify.ecmp_balanced(before, snapshot(skewed))


def test_shards_are_balanced_each_for_itself() -> None:
    """Two VIPs, each over two Maglevs of its own: one shard may well have ten times the flows of the other."""

    def sharded(counts: dict[str, int]) -> RouterView:
        view = router(("m1", "m2"), counts)
        return replace(view, ecmp={**view.ecmp, "192.0.2.2": ("10.1.3.2", "10.1.4.2")})

    before = snapshot(sharded({}))
    even = verify.ecmp_balanced(before, snapshot(sharded(flows(m1=500, m2=500, m3=50, m4=50))))
    skewed = verify.ecmp_balanced(before, snapshot(sharded(flows(m1=500, m2=500, m3=90, m4=10))))
    assert even, even
    assert not skewed
    assert "r1 to m3: 90 flows, expected 50.0" in skewed.evidence
    assert "r1 to m1: 500 flows, expected 500.0" in skewed.evidence


def test_vips_that_share_some_maglevs_cannot_be_judged() -> None:
    view = router(ALL, flows(m1=50, m2=50, m3=50))
    both = snapshot(replace(view, ecmp={**view.ecmp, "192.0.2.2": ("10.1.1.2",)}))
    assert not verify.ecmp_balanced(both, both)


def test_endpoints_match_their_shares() -> None:
    shares = {"s1": 0.25, "s2": 0.75}
    assert verify.endpoints_match_shares({"s1": 24, "s2": 76}, shares)
    assert not verify.endpoints_match_shares({"s1": 50, "s2": 50}, shares)
    stranger = verify.endpoints_match_shares({"s1": 24, "s2": 75, "s3": 1}, shares)
    assert not stranger
    assert "s3: 1 flows, expected 0.0; 0.00% of the slots" in stranger.evidence


def test_flows_are_counted_by_the_endpoint_that_answered() -> None:
    connections = [connection(1), connection(2), connection(3, endpoint="s2"), connection(4, "refused", "")]
    assert verify.flows_by_endpoint(connections) == {"s1": 2, "s2": 1}


def test_answers_go_straight_to_the_client() -> None:
    before = snapshot(router(ALL, packets=flows(m1=10), returned=flows(m1=3)))
    assert verify.direct_server_return(snapshot(router(ALL, packets=flows(m1=20), returned=flows(m1=3))), before)
    crossed = verify.direct_server_return(snapshot(router(ALL, packets=flows(m1=20), returned=flows(m1=4))), before)
    assert not crossed
    assert crossed.evidence == ("r1-m1: 1 packets from VIPs",)
    assert not verify.direct_server_return(before, before), "no request was sent: there was nothing to see"


def test_announced_and_withdrawn_are_waited_for() -> None:
    later = iter([snapshot(router(("m1", "m2"))), snapshot(router(("m1", "m2"))), snapshot(router(ALL))])
    verdict = verify.announced_within(lambda: next(later), "m3", 5.0)
    assert verdict
    assert "the 3rd look" in verdict.actual
    assert verify.withdrawn_within(lambda: snapshot(router(("m1", "m2"))), "m3", 5.0)


def test_what_is_not_announced_or_withdrawn_in_time_is_told() -> None:
    announced = verify.announced_within(lambda: snapshot(router(("m1",))), "m3", 0.02)
    withdrawn = verify.withdrawn_within(lambda: snapshot(router(ALL)), "m3", 0.02)
    silent = verify.announced_within(lambda: snapshot(router(ALL), {"m3": None}), "m3", 0.0)
    assert not announced
    assert announced.evidence == (f"r1 does not send {VIP} to m3",)
    assert not withdrawn
    assert withdrawn.evidence == (f"r1 still sends {VIP} to m3",)
    assert silent.evidence == ("m3's forwarder does not answer",)


def test_maglevs_choose_alike() -> None:
    one, other = ("10.2.1.2", "10.2.2.2", None), ("10.2.1.2", "10.2.1.2", None)
    alike = snapshot(router(ALL), {"m1": maglev(), "m2": maglev(), "m3": None})
    differing = {"m1": maglev("aa", tables={"web": one}), "m2": maglev("bb", tables={"web": other})}
    assert verify.maglevs_choose_alike(alike)
    verdict = verify.maglevs_choose_alike(snapshot(router(ALL), differing))
    assert not verdict
    assert "web: 1 of 3 slots differ" in verdict.evidence
    assert "web, slot 1: m1 s2, m2 s1" in verdict.evidence
    assert not verify.maglevs_choose_alike(snapshot(router(ALL), {"m1": None}))


@dataclass(frozen=True)
class Report:
    sent: int
    received: int


def test_nothing_is_lost() -> None:
    assert verify.nothing_lost(Report(100, 100))
    assert not verify.nothing_lost(Report(100, 99))
    assert not verify.nothing_lost(Report(0, 0))


def test_what_a_maglev_drops_is_told_by_reason() -> None:
    before = snapshot(router(ALL, packets=flows(m1=10)), {"m1": maglev(forwarded=8, drops={"no_vip": 2})})
    good = snapshot(router(ALL, packets=flows(m1=30)), {"m1": maglev(forwarded=28, drops={"no_vip": 2})})
    bad = snapshot(router(ALL, packets=flows(m1=30)), {"m1": maglev(forwarded=27, drops={"no_vip": 3})})
    assert verify.nothing_dropped(before, good)
    verdict = verify.nothing_dropped(before, bad)
    assert not verdict
    assert verdict.evidence == ("m1 dropped 1: no_vip",)


def test_counters_that_began_anew_show_nothing() -> None:
    before = snapshot(router(ALL), {"m1": maglev(uptime_s=50.0)})
    after = snapshot(router(ALL, packets=flows(m1=30)), {"m1": maglev(forwarded=30, uptime_s=1.0)})
    assert not verify.nothing_dropped(before, after)


def test_a_maglev_that_began_anew_is_told_though_all_others_forwarded_everything() -> None:
    before = snapshot(router(ALL), {"m1": maglev(), "m2": maglev(uptime_s=50.0)})
    after = snapshot(router(ALL, packets=flows(m1=30)), {"m1": maglev(forwarded=30), "m2": maglev(uptime_s=1.0)})
    verdict = verify.nothing_dropped(before, after)
    assert not verdict
    assert verdict.evidence == ("m2's counters began anew, or its forwarder does not answer",)


FIVE = {f"10.2.{number}.2": 1.0 for number in range(1, 6)}


def test_theory_counts_the_slots_that_change_without_need() -> None:
    without_5 = {address: weight for address, weight in FIVE.items() if address != "10.2.5.2"}
    theory = verify.change(FIVE, without_5)
    old, new = (np.array(sorted(each))[lookup_table(sorted(each))] for each in (FIVE, without_5))
    stays = old != "10.2.5.2"
    assert (theory.staying, theory.moved) == (stays.sum(), (stays & (old != new)).sum())
    assert verify.change(FIVE, FIVE).moved == 0
    assert verify.change(FIVE, {**FIVE, "10.2.5.2": 0.0}) == theory, "weight 0 takes no slot, as if it had gone"
    assert 0 < theory.share < 0.05


def test_disruption_is_bounded_by_theory() -> None:
    theory = verify.Change(65537, 52_000, 520)  # 1 %
    before = [connection(number, endpoint=f"s{number % 5 + 1}") for number in range(500)]
    stayed = [c for c in before if c.endpoint != "s5"]

    def broke(count: int) -> Verdict:
        chosen = {c.name for c in stayed[:count]}
        after = [replace(c, fate="reset") if c.name in chosen or c.endpoint == "s5" else c for c in before]
        return verify.disruption_within_theory(before, after, theory, leaving={"s5"})

    assert broke(0)
    assert broke(4)
    assert not broke(40)
    assert "at most 13 of 400" in broke(40).expected  # P(X > 13) < 1e-4 <= P(X >= 13), X ~ Bin(400, 0.01)


def test_no_change_of_the_table_may_break_nothing() -> None:
    before = [connection(number) for number in range(50)]
    after = [*before[1:], replace(before[0], fate="reset")]
    assert not verify.disruption_within_theory(before, after, verify.change(FIVE, FIVE))
