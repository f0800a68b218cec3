"""What `python -m maglev trace` and `maglab trace` tell a person, from what was heard."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from lab.trace import Journey
from maglev.tracer import Hop, Passage, Trace, in_words, sentence

CHOSEN = Hop("m1", "www", "a flow", "lookup table", 17, "10.2.3.2", None, "", 0.0002, 0.0006)
KNOWN = replace(CHOSEN, chooser="connection table", slot=None)
SENT_ON = Hop("m2", "", "a flow", "fragment owner", None, "10.1.1.2", None, "", 0.0001, 0.0004)
TAKEN = replace(CHOSEN, vip="datagrams", came_from="10.1.2.2")
FOLLOWED = replace(TAKEN, chooser="fragment table", slot=None)
DROPPED = replace(CHOSEN, vip="", chooser="nobody", slot=None, target=None, reason="no_backend")
NAMES = {"10.1.1.2": "m1", "10.1.2.2": "m2", "10.2.3.2": "s3"}

# what a Maglev said; in words on a client; in a lab, by the nodes' names
SENTENCES = [
    (CHOSEN, "m1 chose 10.2.3.2 for www by its lookup table, slot 17", "to s3 for www, by its lookup table, slot 17"),
    (KNOWN, "m1 chose 10.2.3.2 for www by its connection table", "to s3 for www, by its connection table"),
    (
        SENT_ON,
        "m2 sent the fragment on to 10.1.1.2, the Maglev that owns its packet",
        "a fragment, sent on to m1, which owns its packet",
    ),
    (
        TAKEN,
        "m1 chose 10.2.3.2 for datagrams by its lookup table, slot 17, sent on to it by 10.1.2.2",
        "to s3 for datagrams, by its lookup table, slot 17, sent on by m2",
    ),
    (
        FOLLOWED,
        "m1 chose 10.2.3.2 for datagrams by its fragment table, sent on to it by 10.1.2.2",
        "to s3 for datagrams, by its fragment table, sent on by m2",
    ),
    (DROPPED, "m1 dropped it: no_backend", "dropped, no_backend"),
]


def a_trace(*passages):
    return Trace("10.0.1.2", 4000, "192.0.2.1", 80, "tcp", list(passages))


def a_journey(*passages, back=()):
    legs = {hop.maglev: ("r1",) for passage in passages for hop in passage.hops if hop.target}
    return Journey("c1", ("r1",), "m1", back, asdict(a_trace(*passages)), NAMES, legs)


@pytest.mark.parametrize(("hop", "alone", "in_a_lab"), SENTENCES)
def test_every_report_has_a_sentence(hop, alone, in_a_lab):
    assert sentence(hop) == alone
    lines = list(a_journey(Passage(1, [hop])).lines())
    assert f"  1 {hop.after_s * 1000:6.2f} ms {hop.maglev}: {in_a_lab}" in lines


def test_a_trace_is_told_packet_by_packet():
    told = list(in_words(a_trace(Passage(1, [CHOSEN], "reset", 0.0009), Passage(2, [KNOWN]))))
    assert told == [
        "tcp from 10.0.1.2 port 4000 to 192.0.2.1 port 80",
        "  1     0.60 ms  m1 chose 10.2.3.2 for www by its lookup table, slot 17",
        "  1     0.90 ms  answered by 192.0.2.1: reset",
        "  2     0.60 ms  m1 chose 10.2.3.2 for www by its connection table",
        "  2              not answered",
    ]


def test_a_journey_names_the_way_there_and_back():
    journey = a_journey(Passage(1, [SENT_ON, TAKEN, FOLLOWED], "9 bytes", 0.001), back=("s3", "r1", "c1"))
    assert journey.maglevs == ("m2", "m1")
    assert journey.endpoint == "s3"
    assert list(journey.lines())[-2:] == ["there: c1 -> r1 -> m2 -> r1 -> m1 -> r1 -> s3", "back:  s3 -> r1 -> c1"]
    assert journey.document()["way"] == ["c1", "r1", "m2", "r1", "m1", "r1", "s3"]


def test_a_packet_that_was_dropped_has_no_way_back():
    journey = a_journey(Passage(1, [DROPPED]))
    assert journey.endpoint is None
    assert list(journey.lines())[-1] == "there: c1 -> r1 -> m1"
