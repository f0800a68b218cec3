"""Why connections had to break: timelines worked out by hand, and the tables of the product."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.faults.theory import Life, World, dooms, explained, only_who_had_to, spells
from lab.timeline import Event
from maglev import config
from maglev.flow import TCP, Flow, pack_address, selection_hash
from maglev.hashing import lookup_table

ENDPOINTS = {f"s{n}": [f"10.2.{n}.2"] for n in range(1, 6)}
MAGLEVS = ("m1", "m2", "m3")
TABLE_SIZE = 251


def world(remembers=True):
    check = {"type": "http", "port": 80, "interval_s": 0.5, "timeout_s": 0.5, "rise": 2, "fall": 3}
    members = [{"address": address} for own in ENDPOINTS.values() for address in own]
    document = {
        "maglevs": [{"name": name, "address": f"10.1.{name[1]}.2"} for name in MAGLEVS],
        "pools": {"web": {"endpoints": members, "health_check": check}},
        "vips": [{"name": "echo", "address": "192.0.2.1", "protocol": "tcp", "port": 7, "pool": "web"}],
        "forwarder": {"table_size": TABLE_SIZE, "connection_table": {"enabled": remembers}},
    }
    return World(config.Config.model_validate(document), "echo", ENDPOINTS, MAGLEVS)


def flow(port):
    return Flow(pack_address("10.0.1.2"), pack_address("192.0.2.1"), TCP, port, 7)


def chosen(port, missing=()):
    """Who serves a flow when some endpoints are missing: by Maglev hashing itself, not by what theory asks."""
    there = sorted((own[0] for name, own in ENDPOINTS.items() if name not in missing), key=pack_address)
    slot = selection_hash(flow(port)) % TABLE_SIZE
    address = there[lookup_table(there, TABLE_SIZE)[slot]]
    return next(name for name, own in ENDPOINTS.items() if own == [address])


def never_opened(at_s):
    return Life("c1/0", "c1", "", "refused", at_s, at_s)


def life(endpoint=None, fate="reset", last_answer_s=10.0, port=40000, opened_s=0.0, client="c1"):
    return Life("c1/0", client, endpoint or chosen(port), fate, opened_s, last_answer_s, flow(port))


def timeline(*faults):
    """Events of (what, where, begin, end or None, detail)."""
    events = []
    for what, where, begin_s, end_s, *detail in faults:
        events.append(Event(begin_s, "fault", what, where, detail[0] if detail else {}))
        if end_s is not None:
            events.append(Event(end_s, "undone", what, where))
    return spells(sorted(events, key=lambda event: event.at_s))


def test_a_fault_lasts_from_its_event_to_that_of_its_end_and_begins_when_it_was_begun():
    first, second = timeline(
        ("kill", "m1", 3.0, 5.0, {"took_s": 0.5, "daemons": ["forwarder"]}), ("drain", "s1", 4.0, None)
    )
    assert (first.begin_s, first.end_s, first.daemons) == (2.5, 5.0, ("forwarder",))
    assert second.end_s == float("inf")


@pytest.mark.parametrize("what", ["kill", "power off", "crash loop", "restart"])
def test_connections_of_an_endpoint_that_dies_had_to_break_and_no_others(what):
    happened = timeline((what, "s2", 10.0, 20.0))
    assert explained(life("s2"), world(), happened).is_certain
    assert explained(life("s3"), world(), happened) is None
    assert dooms(life("s3"), world(), happened) == []


def test_a_connection_that_broke_long_before_its_endpoint_died_broke_of_something_else():
    assert explained(life("s2", last_answer_s=3.0), world(), timeline(("kill", "s2", 10.0, 20.0))) is None


def test_a_connection_opened_after_its_endpoint_came_back_has_nothing_to_fear():
    assert dooms(life("s2", opened_s=60.0, last_answer_s=61.0), world(), timeline(("kill", "s2", 10.0, 20.0))) == []


@pytest.mark.parametrize("what", ["kill", "power off", "freeze", "link down", "one way"])
def test_a_connection_may_fail_to_open_until_checks_have_found_that_an_endpoint_is_gone(what):
    """Three failures half a second apart, the last of which takes half a second: 2 s, and 1 s for the tables."""
    happened = timeline((what, "r1-s2" if what in ("link down", "one way") else "s2", 10.0, 40.0))
    for at_s in (10.0, 12.9):
        assert "opened while nobody knew" in explained(never_opened(at_s), world(), happened).reason
    assert explained(never_opened(20.0), world(), happened) is None
    assert explained(never_opened(5.0), world(), happened) is None


@pytest.mark.parametrize(("what", "known_s"), [("power off", 4.0), ("freeze", 1.2)])
def test_a_connection_may_fail_to_open_until_routers_know_that_a_maglev_is_silent(what, known_s):
    happened = timeline((what, "m1", 10.0, 60.0))
    assert "opened while no router knew" in explained(never_opened(10.0 + known_s), world(), happened).reason
    assert explained(never_opened(20.0), world(), happened) is None


@pytest.mark.parametrize("what", ["kill", "drain", "restart"])
def test_no_connection_fails_to_open_when_a_maglev_leaves_and_says_so(what):
    assert explained(never_opened(10.0), world(), timeline((what, "m1", 10.0, 60.0))) is None


def test_only_what_was_going_on_is_named_as_a_reason():
    happened = timeline(("drain", "s2", 0.0, 40.0), ("kill", "m1", 30.0, None), ("kill", "s2", 90.0, 95.0))
    port = next(port for port in range(40000, 41000) if chosen(port) == "s2")
    doom = explained(life("s2", port=port, last_answer_s=30.0), world(), happened)
    assert "drain s2" in doom.reason
    assert "kill s2" not in doom.reason


@pytest.mark.parametrize("what", ["freeze", "link down", "one way"])
def test_connections_of_an_endpoint_out_of_reach_may_break(what):
    where = "s2" if what == "freeze" else "r1-s2"
    doom = explained(life("s2"), world(), timeline((what, where, 9.0, 14.0)))
    assert doom is not None
    assert not doom.is_certain


@pytest.mark.parametrize("what", ["kill", "power off", "freeze", "drain", "restart"])
def test_a_maglev_that_comes_or_goes_alone_breaks_nothing(what):
    happened = timeline((what, "m1", 9.0, 20.0))
    assert dooms(life(), world(), happened) == []


def test_an_endpoint_that_is_drained_or_dies_breaks_none_of_the_others_connections():
    for what in ("drain", "kill"):
        for port in range(40000, 40100):
            if chosen(port) != "s2":
                assert dooms(life(port=port), world(), timeline((what, "s2", 9.0, 20.0))) == []


def test_both_at_once_break_those_whose_slot_has_changed_and_no_others():
    """A bounded share: beside the missing endpoint's own, a few per cent of the slots change (Maglev §5.3)."""
    happened = timeline(("drain", "s2", 0.0, None), ("kill", "m1", 30.0, None))
    at_risk, others = 0, [port for port in range(40000, 41000) if chosen(port) != "s2"]
    for port in others:
        doomed = explained(life(port=port, last_answer_s=30.0), world(), happened)
        assert (doomed is not None) == (chosen(port, {"s2"}) != chosen(port)), f"port {port}: {doomed}"
        at_risk += doomed is not None
    assert 0 < at_risk < 0.15 * len(others), f"{at_risk} of {len(others)}"
    drained = [port for port in range(40000, 40200) if chosen(port) == "s2"]
    assert drained
    for port in drained:  # they stayed with a drained endpoint, which a Maglev that has not seen them would not choose
        doom = explained(life("s2", port=port, last_answer_s=30.0), world(), happened)
        assert doom is not None
        assert "drain s2" in doom.reason
        assert "kill m1" in doom.reason


def test_a_connection_opened_while_an_endpoint_was_away_is_at_risk_when_a_maglev_changes_after_its_return():
    port = next(port for port in range(40000, 41000) if chosen(port) == "s2")
    other = chosen(port, {"s2"})
    late = life(other, port=port, opened_s=10.0, last_answer_s=60.0)
    happened = timeline(("kill", "s2", 0.0, 20.0), ("kill", "m1", 60.0, None))
    assert explained(late, world(), happened) is not None
    assert explained(late, world(), happened[:1]) is None


def test_without_a_connection_table_a_change_of_endpoints_alone_breaks_the_share():
    happened = timeline(("drain", "s2", 30.0, None))
    moved = next(port for port in range(40000, 41000) if chosen(port) != "s2" and chosen(port, {"s2"}) != chosen(port))
    stayed = next(port for port in range(40000, 41000) if chosen(port, {"s2"}) == chosen(port))
    assert explained(life(port=moved, last_answer_s=30.0), world(remembers=False), happened) is not None
    assert explained(life(port=stayed, last_answer_s=30.0), world(remembers=False), happened) is None
    assert explained(life(port=moved, last_answer_s=30.0), world(), happened) is None


def test_a_maglev_that_thaws_believes_what_it_knew_when_it_froze():
    port = next(port for port in range(40000, 41000) if chosen(port) == "s3")
    other = chosen(port, {"s3"})
    happened = timeline(("kill", "s3", 0.0, 20.0), ("freeze", "m1", 10.0, 60.0))
    late = life(other, port=port, opened_s=5.0, last_answer_s=60.5)
    assert explained(late, world(), happened) is not None


def test_a_maglev_whose_link_comes_back_knows_no_endpoints_at_first():
    doom = explained(life(last_answer_s=20.0), world(), timeline(("link down", "r1-m1", 10.0, 20.0)))
    assert "before it knew its endpoints" in doom.reason


def test_what_is_harmless_is_no_reason():
    faults = [("misconfigure", "m1", 9.0, 9.0), ("slow checks", "", 9.0, 20.0)]
    faults += [("impair", "r1-m1", 9.0, 20.0, {"may_be_noticed": False})]
    assert dooms(life(), world(), timeline(*faults)) == []


def test_one_silence_after_another_may_last_until_a_connection_counts_as_stalled():
    twice = timeline(("power off", "m1", 10.0, None), ("power off", "m2", 15.0, None))
    doom = explained(life(fate="stalled", last_answer_s=10.0), world(), twice)
    assert "power off m1" in doom.reason
    assert "power off m2" in doom.reason
    assert explained(life(fate="stalled", last_answer_s=10.0), world(), twice[:1]) is None


def test_a_client_whose_link_is_cut_for_long_loses_its_connections():
    happened = timeline(("link down", "r1-c1", 10.0, 25.0))
    assert explained(life(fate="stalled"), world(), happened) is not None
    assert explained(life(fate="stalled", client="c2"), world(), happened) is None


def test_the_verdict_names_each_that_broke_with_its_reason():
    happened = timeline(("kill", "s2", 10.0, 20.0))
    lives = [Life("c1/0", "c1", "s2", "reset", 0.0, 10.0), Life("c1/1", "c1", "s3")]
    verdict = only_who_had_to(lives, world(), happened)
    assert verdict, verdict
    assert verdict.evidence == ("c1/0 (with s2): reset after 10.0 s: its endpoint died: kill s2 (10.0 s to 20.0 s)",)


def test_the_verdict_finds_who_broke_for_no_reason_and_who_lives_that_had_to_die():
    happened = timeline(("kill", "s2", 10.0, 20.0))
    innocent = only_who_had_to([Life("c1/0", "c1", "s3", "reset", 0.0, 10.0)], world(), happened)
    assert not innocent
    assert "no reason" in innocent.evidence[0]
    immortal = only_who_had_to([Life("c1/0", "c1", "s2")], world(), happened)
    assert not immortal
    assert "lives, though" in immortal.evidence[0]
    assert not only_who_had_to([], world(), happened), "nobody was judged"


def test_where_slots_are_not_known_no_more_may_break_than_have_moved():
    """What a connection's port is nobody may have said: then the share is what theory knows."""
    happened = timeline(("drain", "s2", 5.0, None), ("kill", "m1", 30.0, None))
    moved = [port for port in range(40000, 42000) if chosen(port) != "s2" and chosen(port, {"s2"}) != chosen(port)]
    lives = [
        Life(f"c1/{port}", "c1", chosen(port), "reset" if port in moved else "alive", 0.0, 30.0)
        for port in range(40000, 42000)
        if chosen(port) != "s2"
    ]
    assert moved
    assert only_who_had_to(lives, world(), happened)
    more = [replace(each, fate="reset") if place % 4 == 0 else each for place, each in enumerate(lives)]
    verdict = only_who_had_to(more, world(), happened)
    assert not verdict
    assert "theory allows" in verdict.evidence[0]
