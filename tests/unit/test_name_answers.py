"""What the name server answers, message by message; Scapy reads the answers, which has nothing of dnslib."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from dnslib import EDNS0, QTYPE, DNSRecord, EDNSOption
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS

from maglev.name_answers import Chosen, Subnet, Zone, reply_to

ZONE = Zone("lab.example", "ns1.lab.example", frozenset({"www", "nobody", "many"}), 5)
CLIENT, CLIENT6 = ip_address("10.0.1.2"), ip_address("fd00:0:1::2")
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
A, NS, SOA, AAAA, MX, ANY = 1, 2, 6, 28, 15, 255


class Chooser:
    """Knows one address of each family, and remembers whom it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, name, version, subnet):
        self.asked.append((name, version, subnet))
        if name == "nobody":
            return None
        if name == "many":
            return Chosen(tuple(ip_address(f"192.0.2.{i}") for i in range(100)), 0)
        return Chosen((ip_address("192.0.2.1" if version == 4 else "2001:db8::1"),), 24)


def query(name, kind="A", *options, edns=False, udp_bytes=1232, version=0):
    record = DNSRecord.question(name, kind)
    if options or edns:
        record.add_ar(EDNS0(udp_len=udp_bytes, opts=list(options), version=version))
    return record.pack()


def subnet_option(family, length, scope, address):
    return EDNSOption(8, bytes([0, family, length, scope]) + bytes(address))


def answered(message, source=CLIENT, chooser=None, over_tcp=False):
    return reply_to(message, source, ZONE, chooser or Chooser(), over_tcp)


def read(message):
    """What Scapy reads: code, authoritative, answers as (name, type, data, ttl), types in the authority section."""
    found = DNS(message)
    answers = [(rr.rrname.decode(), rr.type, getattr(rr, "rdata", None), rr.ttl) for rr in found.an or []]
    return found.rcode, found.aa, answers, [rr.type for rr in found.ns or []]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("www.lab.example", "A", (NOERROR, 1, [("www.lab.example.", A, "192.0.2.1", 5)], [])),
        ("www.lab.example", "AAAA", (NOERROR, 1, [("www.lab.example.", AAAA, "2001:db8::1", 5)], [])),
        ("wWw.LAB.example", "A", (NOERROR, 1, [("wWw.LAB.example.", A, "192.0.2.1", 5)], [])),
        ("www.lab.example", "ANY", (NOERROR, 1, [("www.lab.example.", A, "192.0.2.1", 5)], [])),
        ("www.lab.example", "MX", (NOERROR, 1, [], [SOA])),
        ("ftp.lab.example", "A", (NXDOMAIN, 1, [], [SOA])),
        ("a.www.lab.example", "A", (NXDOMAIN, 1, [], [SOA])),
        ("nobody.lab.example", "A", (SERVFAIL, 1, [], [])),
        ("lab.example", "A", (NOERROR, 1, [], [SOA])),
        ("lab.example", "NS", (NOERROR, 1, [("lab.example.", NS, b"ns1.lab.example.", 5)], [])),
        ("notlab.example", "A", (REFUSED, 0, [], [])),
        ("example", "A", (REFUSED, 0, [], [])),
        (".", "NS", (REFUSED, 0, [], [])),
    ],
)
def test_names(name, kind, expected):
    assert read(answered(query(name, kind))) == expected


def test_the_number_and_the_wish_for_recursion_come_back_and_nothing_is_promised():
    record = DNSRecord.question("www.lab.example")
    record.header.id, record.header.rd = 4711, 1
    found = DNS(answered(record.pack()))
    assert (found.id, found.qr, found.rd, found.ra) == (4711, 1, 1, 0)


def test_a_resolver_speaks_for_its_client():
    chooser = Chooser()
    found = DNSRecord.parse(
        answered(query("www.lab.example", "A", subnet_option(1, 24, 0, (10, 9, 8))), chooser=chooser)
    )
    assert chooser.asked == [("www", 4, Subnet(ip_address("10.9.8.0"), 24))]
    [option] = found.ar[0].rdata
    assert bytes(option.data) == bytes([0, 1, 24, 24, 10, 9, 8]), "the scope says for whom the answer is right"


def test_a_scope_is_not_finer_than_what_the_resolver_told():
    found = DNSRecord.parse(answered(query("www.lab.example", "A", subnet_option(1, 16, 0, (10, 9)))))
    assert bytes(found.ar[0].rdata[0].data) == bytes([0, 1, 16, 16, 10, 9])


def test_a_resolver_that_hides_its_client_is_one_itself():
    chooser = Chooser()
    answered(query("www.lab.example", "A", subnet_option(2, 0, 0, ())), chooser=chooser)
    assert chooser.asked == [("www", 4, Subnet(ip_address("::"), 0))]


@pytest.mark.parametrize("source", [CLIENT, CLIENT6])
def test_without_a_resolver_the_client_speaks_for_itself(source):
    chooser = Chooser()
    answered(query("www.lab.example"), source, chooser)
    assert chooser.asked == [("www", 4, Subnet(source, source.max_prefixlen))]


@pytest.mark.parametrize(
    "option",
    [
        EDNSOption(8, b"\0\1"),
        subnet_option(3, 24, 0, (10, 0, 0)),  # no such family
        subnet_option(1, 33, 0, (10, 0, 0, 0, 0)),
        subnet_option(1, 24, 0, (10, 0)),  # cut short
        subnet_option(1, 24, 0, (10, 0, 0, 0)),  # too long
        subnet_option(1, 20, 0, (10, 0, 0xFF)),  # bits behind the prefix
        subnet_option(1, 24, 24, (10, 0, 0)),  # a scope in a query
    ],
)
def test_a_malformed_subnet_is_a_format_error(option):
    assert read(answered(query("www.lab.example", "A", option)))[0] == FORMERR


def test_a_newer_edns_is_told_what_is_spoken_here():
    found = DNSRecord.parse(answered(query("www.lab.example", edns=True, version=1)))
    assert (found.header.rcode, found.ar[0].ttl >> 24) == (0, 1), "BADVERS is 16: 0 in the header, 1 in the record"


def test_who_speaks_no_edns_hears_none():
    assert not DNSRecord.parse(answered(query("www.lab.example"))).ar


def test_another_opcode_is_not_implemented():
    record = DNSRecord.question("www.lab.example")
    record.header.opcode = 5
    found = DNS(answered(record.pack()))
    assert (found.rcode, found.opcode) == (NOTIMP, 5)


def test_two_questions_are_a_format_error():
    record = DNSRecord.question("www.lab.example")
    record.add_question(DNSRecord.question("www.lab.example").q)
    assert read(answered(record.pack()))[0] == FORMERR


@pytest.mark.parametrize("message", [b"", b"\0" * 11, DNSRecord.question("www.lab.example").reply().pack()])
def test_what_is_no_query_has_no_answer(message):
    assert answered(message) is None


@pytest.mark.parametrize(
    ("options", "over_tcp", "room", "whole"),
    [
        ({}, False, 512, False),
        ({"edns": True}, False, 1232, False),
        ({"edns": True, "udp_bytes": 65535}, False, 1232, False),
        ({"edns": True, "udp_bytes": 100}, False, 512, False),
        ({}, True, 65535, True),
    ],
)
def test_what_has_no_room_is_cut_and_says_so(options, over_tcp, room, whole):
    message = answered(query("many.lab.example", **options), over_tcp=over_tcp)
    found = DNS(message)
    assert len(message) <= room
    assert (found.tc, found.ancount) == ((0, 100) if whole else (1, 0))


@given(st.binary(max_size=200))
def test_no_message_is_too_much(message):
    reply = answered(message)
    assert reply is None or reply[:2] == message[:2]


def test_no_bent_query_is_too_much():
    dice = random.Random(5)
    whole = query("www.lab.example", "AAAA", subnet_option(1, 24, 0, (10, 0, 1)))
    for _ in range(5000):
        bent = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            bent[dice.randrange(2, len(bent))] = dice.randrange(256)
        reply = answered(bytes(bent[: dice.randrange(12, len(bent) + 1)]))
        assert reply is None or DNSRecord.parse(reply).header.id == DNSRecord.parse(whole).header.id


def test_every_kind_is_known_to_dnslib():
    assert (QTYPE.A, QTYPE.NS, QTYPE.SOA, QTYPE.AAAA, QTYPE.MX, QTYPE.ANY) == (A, NS, SOA, AAAA, MX, ANY)
