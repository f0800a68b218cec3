"""The endpoint's gate: in comes what a configured Maglev sent for a VIP of this endpoint, and the rest is counted."""

from __future__ import annotations

import os
from collections import Counter
from ipaddress import ip_address

import pytest
from frames import RECORD_ROUTE, VIP, ping, sent, tcp, udp
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.l2 import GRE
from scapy.packet import Raw

from maglev.engine.decapsulation import Gate, pump
from maglev.errors import Discard, Reason
from maglev.flow import pack_address
from maglev.gre import Tunnel

MAGLEVS = ["10.1.1.2", "10.1.2.2"]
OWN_VIPS = [VIP, "192.0.2.2"]
ENDPOINT = "10.2.1.2"


def gate():
    return Gate([ip_address(address) for address in MAGLEVS], [ip_address(address) for address in OWN_VIPS])


def in_gre(inner, source=MAGLEVS[0], gre=None, **ip):
    return bytes(IP(src=source, dst=ENDPOINT, proto=47, **ip) / (gre or GRE(proto=0x0800)) / Raw(inner))


INNER = tcp("A", payload=b"hello")[14:]

# name, the outer packet, the reason or the inner packet that comes in
CASES = [
    ("the first Maglev", in_gre(INNER), INNER),
    ("the second Maglev", in_gre(INNER, MAGLEVS[1]), INNER),
    ("the other VIP", in_gre(udp(destination="192.0.2.2")[14:]), udp(destination="192.0.2.2")[14:]),
    ("a ping", in_gre(ping()[14:]), ping()[14:]),
    ("outer IP options", in_gre(INNER, options=[RECORD_ROUTE]), INNER),
    ("inner IP options", in_gre(tcp(options=[RECORD_ROUTE])[14:]), tcp(options=[RECORD_ROUTE])[14:]),
    ("a Maglev's own tunnel", Tunnel(*map(pack_address, [MAGLEVS[0], ENDPOINT])).encapsulate(INNER), INNER),
    ("somebody else", in_gre(INNER, "10.1.3.2"), Reason.NOT_FROM_MAGLEV),
    ("the VIP as sender", in_gre(INNER, VIP), Reason.NOT_FROM_MAGLEV),
    ("the endpoint itself as sender", in_gre(INNER, ENDPOINT), Reason.NOT_FROM_MAGLEV),
    ("another VIP", in_gre(tcp(destination="192.0.2.3")[14:]), Reason.NOT_VIP),
    ("the endpoint's own address inside", in_gre(tcp(destination=ENDPOINT)[14:]), Reason.NOT_VIP),
    ("a VIP as the inner sender only", in_gre(tcp(source=VIP, destination="10.9.9.9")[14:]), Reason.NOT_VIP),
    ("a GRE key", in_gre(INNER, gre=GRE(key_present=1, key=1)), Reason.BAD_GRE_HEADER),
    ("a GRE checksum", in_gre(INNER, gre=GRE(chksum_present=1)), Reason.BAD_GRE_HEADER),
    ("Ethernet in GRE", in_gre(INNER, gre=GRE(proto=0x6558)), Reason.BAD_GRE_HEADER),
    ("IPv6 in GRE", in_gre(INNER, gre=GRE(proto=0x86DD)), Reason.BAD_GRE_HEADER),
    ("half an inner header", in_gre(INNER[:10]), Reason.BAD_GRE_HEADER),
    ("no GRE header", bytes(IP(src=MAGLEVS[0], dst=ENDPOINT, proto=47)), Reason.BAD_GRE_HEADER),
]


@pytest.mark.parametrize(("name", "outer", "expected"), CASES, ids=[case[0] for case in CASES])
def test_the_gate_lets_in_what_a_maglev_sent_for_an_own_vip(name, outer, expected):
    try:
        found = gate().admit(outer)
    except Discard as discard:
        found = discard.reason
    assert found == expected, f"{name}: should have been {expected!r}, but was {found!r}"


@given(sent(), st.sampled_from(MAGLEVS))
def test_what_comes_in_is_the_clients_packet_byte_for_byte(facts, maglev):
    vips = [ip_address(IP(facts.inner).dst)]
    inner = Gate([ip_address(maglev)], vips).admit(in_gre(facts.inner, maglev))
    assert inner == facts.inner, f"should have been {facts.inner.hex()}, but was {inner.hex()}"


@given(st.binary(max_size=80), st.integers(5, 15))
def test_whatever_stands_behind_a_sound_ip_header_is_let_in_or_discarded(content, words):
    outer = bytes([0x40 | words]) + in_gre(b"")[1:20] + content
    try:
        inner = gate().admit(outer)
    except Discard:
        return
    assert outer.endswith(inner), "what is let in should be the end of what came"


class Done(Exception):
    """Ends the pump, as a signal handler does."""


def pumped(outers):
    """Runs the pump over packets; returns the gate, and what came out of the other end, a packet at a time."""
    waiting = iter(outers)

    def receive(size):
        assert size >= 65535, f"a packet of 65,535 bytes should fit, but only {size} are asked for"
        for outer in waiting:
            return outer
        raise Done

    subject = gate()
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)  # as a TUN device, it keeps packets apart
    try:
        with pytest.raises(Done):
            pump(receive, writing, subject)
        out = []
        while True:
            try:
                out.append(os.read(reading, 65535))
            except BlockingIOError:
                return subject, out
    finally:
        os.close(reading)
        os.close(writing)


def test_the_pump_carries_what_may_come_in_and_counts_the_rest():
    subject, out = pumped([outer for _, outer, _ in CASES])
    expected = [fate for _, _, fate in CASES if not isinstance(fate, Reason)]
    assert out == expected, f"should have carried {len(expected)} packets as they were, but carried {out}"
    reasons = Counter(fate for _, _, fate in CASES if isinstance(fate, Reason))
    assert subject.reasons == reasons, f"should have counted {reasons}, but counted {subject.reasons}"


def test_what_the_device_does_not_take_is_counted():
    subject, waiting = gate(), iter([in_gre(INNER)])

    def receive(size):
        for outer in waiting:
            return outer
        raise Done

    reading, writing = os.pipe()
    os.close(writing)
    try:
        with pytest.raises(Done):
            pump(receive, reading, subject)  # nobody can write to the end that reads
    finally:
        os.close(reading)
    found = dict(subject.reasons)
    assert found == {Reason.SEND_FAILED: 1}, f"one failure should be counted, but: {found}"
