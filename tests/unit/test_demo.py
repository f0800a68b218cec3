"""The demo's verdicts, which are pure: who had to die, who should have lived, and what a person is told of it."""

from __future__ import annotations

import pytest

pytest.importorskip("mininet.net", reason="the laboratory needs Debian's package mininet")

from lab.connections import Connection
from lab.dashboard import sentence, verdict
from lab.demo import Event, Result, Step, judge, shares, steps

KILL_S2 = Step("kill s2", "endpoints", lambda lab: None, dies="s2")
KILL_M1 = Step("kill m1", "maglevs", lambda lab: None)


def held(number, endpoint="s1", fate="alive", silence_ms=100.0, client="c1"):
    return Connection(client, number, fate, endpoint, 10, silence_ms)


def judged(step, before, after):
    return judge(step, before, after, 0.5, "")


# Judge: one event


def test_nothing_broke():
    event = judged(KILL_M1, [held(0), held(1, "s2")], [held(0), held(1, "s2")])
    assert (event.event, event.broken, event.expected_broken, event.living) == ("kill m1", 0, 0, 2)


@pytest.mark.parametrize("fate", ["reset", "stalled", "garbled", "refused"])
def test_whoever_ends_otherwise_than_by_us_is_broken(fate):
    event = judged(KILL_M1, [held(0), held(1)], [held(0, fate=fate), held(1)])
    assert (event.broken, event.living) == (1, 1)


def test_closed_by_us_is_not_broken():
    assert judged(KILL_M1, [held(0)], [held(0, fate="closed")]).broken == 0


def test_connections_of_a_dead_endpoint_had_to_die_and_no_others():
    before = [held(0, "s1"), held(1, "s2"), held(2, "s2"), held(3, "s3")]
    after = [held(0, "s1"), held(1, "s2", "reset"), held(2, "s2", "stalled"), held(3, "s3", "reset")]
    event = judged(KILL_S2, before, after)
    assert (event.broken, event.expected_broken) == (1, 2)


def test_a_connection_that_had_to_die_and_lives_is_no_break():
    event = judged(KILL_S2, [held(0, "s2")], [held(0, "s2")])
    assert (event.broken, event.expected_broken) == (0, 1)


def test_what_broke_in_an_earlier_event_is_not_counted_again():
    before = [held(0, fate="reset"), held(1, "s2", "reset"), held(2)]
    event = judged(KILL_S2, before, before)
    assert (event.broken, event.expected_broken, event.living) == (0, 0, 1)


def test_connections_are_told_apart_by_client_and_number():
    before = [held(0, client="c1"), held(0, client="c2", fate="reset")]
    event = judged(KILL_M1, before, [held(0, client="c1", fate="reset"), held(0, client="c2", fate="reset")])
    assert event.broken == 1


def test_the_longest_silence_is_that_of_a_connection_that_lives():
    after = [held(0, silence_ms=20.0), held(1, silence_ms=300.0), held(2, "s2", "stalled", silence_ms=9000.0)]
    assert judged(KILL_S2, [held(n) for n in range(3)], after).longest_silence_ms == 300.0


def test_an_event_that_nobody_survives_has_no_silence():
    event = judged(KILL_S2, [held(0, "s2")], [held(0, "s2", "reset")])
    assert (event.longest_silence_ms, event.living) == (0.0, 0)


def test_the_time_to_convergence_is_rounded_to_milliseconds_and_the_note_is_kept():
    event = judge(KILL_M1, [], [], 0.12345678, "none of 50")
    assert (event.converged_s, event.note, event.changes) == (0.123, "none of 50", "maglevs")


# Shares


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"m2": 1, "m1": 3}, {"m1": 0.75, "m2": 0.25}),
        ({"a": 1, "b": 1, "c": 1}, {"a": 0.3333, "b": 0.3333, "c": 0.3333}),
        ({"m1": 0, "m2": 0}, {"m1": 0, "m2": 0}),
        ({}, {}),
    ],
)
def test_shares(counts, expected):
    assert shares(counts) == expected


# Steps


def test_the_demo_kills_revives_drains_and_powers_off_and_undoes_each_fault_before_the_next():
    names = [step.name for step in steps(["m1", "m2", "m3"], ["s1", "s2", "s3", "s4", "s5"])]
    assert names == ["kill m1", "revive m1", "drain s5", "undrain s5", "kill s4", "revive s4", "power off m3"]


def test_only_the_death_of_an_endpoint_excuses_broken_connections():
    excuses = {step.name: step.dies for step in steps(["m1", "m2"], ["s1", "s2", "s3"]) if step.dies}
    assert excuses == {"kill s2": "s2"}


# Verdict: the whole demo


def result(*events, returned=0, connections=300):
    ok = returned == 0 and not any(event.broken for event in events)
    return Result(ok, "rack", "maglev", True, connections, events, {}, {}, returned, 4.0, 20.0)


def event(name, broken=0, doomed=0, changes="endpoints", note=""):
    return Event(name, broken, doomed, 0.061, 120.4, 100, changes, note)


def test_verdict_of_a_demo_in_which_all_is_well():
    told = verdict(result(event("kill m1", changes="maglevs"), event("kill s4", doomed=57)))
    assert told == "OK: no connection broke that should have lived; 57 died with their endpoint, as they had to."


def test_verdict_names_how_many_broke_what_share_that_is_and_by_what():
    told = verdict(
        result(event("kill m1", 10, changes="maglevs"), event("drain s5", 90), event("kill s4", 0, doomed=100))
    )
    assert told.startswith("BROKEN: 100 connections that should have lived (50% of them), 90 of these by changes of ")


def test_verdict_of_return_packets_through_a_maglev():
    assert verdict(result(event("kill m1"), returned=3)).startswith("WRONG: 3 return packets crossed a Maglev")


def test_verdict_when_everybody_was_doomed():
    assert verdict(result(event("kill s1", 1, doomed=2), connections=2)).startswith("BROKEN: 1 connections")


def test_an_events_sentence_says_what_broke_and_when_it_was_over():
    told = sentence(event("kill s4", 2, 57, note="note"))
    assert told == (
        "kill s4: 2 broken that should have lived; 57 had to die with their endpoint; "
        "converged in 0.06 s, longest silence 120 ms; note"
    )
    assert "had to die" not in sentence(event("kill m1"))


def test_a_result_as_a_document_has_what_a_reader_of_the_json_is_promised():
    document = result(event("kill m1")).document()
    assert document.keys() >= {
        "ok", "connections", "events", "ecmp_shares", "endpoint_shares", "return_packets_through_maglevs", "start_s",
        "total_s",
    }  # fmt: skip
    assert document["events"][0].keys() >= {"event", "broken", "expected_broken", "converged_s", "longest_silence_ms"}
