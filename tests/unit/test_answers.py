"""What counts as a good answer to a probe; DNS answers are Scapy's."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR

from maglev import answers
from maglev.answers import ProbeFailed
from maglev.config import HealthCheck

HTTP = HealthCheck(type="http", port=80, status=[200, "300-302"], body="all is well")
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"

BODIES = [  # an answer, and why it is not good
    (OK + b"\r\nso all is well.", None),
    (OK + b"Content-Length: 11\r\n\r\nall is well", None),
    (CHUNKED + b"4;x=y\r\nall \r\n7\r\nis well\r\n0\r\n\r\n", None),
    (CHUNKED + b"B\r\nall is well\r\n", None),
    (CHUNKED + b"4\r\nall \r\nis well\r\n0\r\n\r\n", "the body does not hold 'all is well'"),
    (OK + b"X: all is well\r\n\r\nnothing", "the body does not hold 'all is well'"),
    (b"HTTP/1.1 302 Found\r\n\r\nall is well", None),
    (b"HTTP/1.1 303 See Other\r\n\r\nall is well", "HTTP status 303"),
    (b"HTTP/1.1 201 Created\r\n\r\nall is well", "HTTP status 201"),
]


def reason_of(judge, *arguments):
    try:
        judge(*arguments)
    except ProbeFailed as failed:
        return str(failed)
    return None


@pytest.mark.parametrize(("answer", "reason"), BODIES)
def test_http_wants_a_status_and_a_text(answer, reason):
    assert reason_of(answers.judge_http, HTTP, answer) == reason


WHOLE = [
    (OK, False),
    (OK + b"\r\nbody until the end of the connection", False),
    (OK + b"Content-Length: 3\r\n\r\n12", False),
    (OK + b"content-length:3\r\n\r\n123", True),
    (OK + b"Content-Length: 0\r\n\r\n", True),
    (OK + b"X-Content-Length: 0\r\n\r\n", False),
    (CHUNKED + b"3\r\n123\r\n", False),
    (CHUNKED + b"3\r\n123\r\n0\r\n", True),
    (CHUNKED + b"3\r\n0\r\n\r\n0\r\n\r\n", True),
    (CHUNKED + b"5\r\n0\r\n", False),
]


@pytest.mark.parametrize(("answer", "whole"), WHOLE)
def test_an_http_answer_has_ended_when_it_says_so(answer, whole):
    assert answers.http_is_whole(answer) is whole


@given(st.binary(max_size=200))
def test_no_answer_breaks_a_judge(noise):
    for start in (b"", OK, OK + b"\r\n", CHUNKED, OK + b"Content-Length: "):
        answers.http_is_whole(start + noise)
        reason_of(answers.judge_http, HTTP, start + noise)


HOSTS = [
    ({}, "10.2.1.2", "10.2.1.2:80"),
    ({}, "2001:db8::2", "[2001:db8::2]:80"),
    ({"host": "www.example.com"}, "10.2.1.2", "www.example.com"),
]


@pytest.mark.parametrize(("options", "address", "host"), HOSTS)
def test_http_asks_for_the_host_that_is_wanted(options, address, host):
    request = answers.http_request(HealthCheck(type="http", port=80, **options), ip_address(address))
    assert request.split(b"\r\n")[:2] == [b"GET / HTTP/1.1", f"Host: {host}".encode()]
    assert request.endswith(b"\r\n\r\n")


UDP = [  # what is expected, the answer, why it is not good
    (None, b"", None),
    ("pong", b"ping pong", None),
    ("pong", b"ping", "the answer does not hold 'pong'"),
    ("hex:00ff", b"x\x00\xffy", None),
    ("hex:00ff", b"hex:00ff", "the answer does not hold 'hex:00ff'"),
    ("\xe9", "caf\xe9".encode(), None),
]


@pytest.mark.parametrize(("expect", "answer", "reason"), UDP)
def test_udp_wants_what_is_expected(expect, answer, reason):
    method = HealthCheck(type="udp", port=7, send="ping", expect=expect)
    assert reason_of(answers.judge_udp, method, answer) == reason


DNS_CHECK = HealthCheck(type="dns", query="www.example.com")


def dns_answer(records=(), **fields):
    question = DNSQR(qname="www.example.com")
    return bytes(DNS(**({"id": 77, "qr": 1, "qd": question, "an": list(records)} | fields)))


A = DNSRR(rrname="www.example.com", type="A", rdata="192.0.2.7")
CNAME = DNSRR(rrname="www.example.com", type="CNAME", rdata="example.com")

DNS_ANSWERS = [
    (dns_answer([A]), None),
    (dns_answer([CNAME, A]), None),
    (dns_answer([CNAME]), "the name server knows no A record of www.example.com"),
    (dns_answer(), "the name server knows no A record of www.example.com"),
    (dns_answer(rcode=5), "the name server answers REFUSED"),
    (dns_answer(rcode=3), "the name server answers NXDOMAIN"),
]


@pytest.mark.parametrize(("answer", "reason"), DNS_ANSWERS)
def test_dns_wants_a_record_of_the_type_that_was_asked_for(answer, reason):
    assert reason_of(answers.judge_dns, DNS_CHECK, 77, answer) == reason


@pytest.mark.parametrize("answer", [dns_answer([A], id=78), dns_answer([A], qr=0)])
def test_dns_passes_over_what_does_not_answer_its_question(answer):
    assert answers.judge_dns(DNS_CHECK, 77, answer) is False
    assert answers.judge_dns(DNS_CHECK, 77, dns_answer([A])) is True


@given(st.binary(max_size=100))
def test_what_is_no_dns_is_said_to_be_none_or_is_passed_over(noise):
    reason_of(answers.judge_dns, DNS_CHECK, 77, noise)
    reason_of(answers.judge_dns, DNS_CHECK, 77, dns_answer([A])[:12] + noise)


@pytest.mark.parametrize("record", ["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"])
def test_dns_asks_for_the_name_and_the_type(record):
    asked = DNS(answers.dns_question(HealthCheck(type="dns", query="www.example.com", record=record), 0x1234))
    assert (asked.id, asked.qr, asked.rd, asked.qdcount, asked.ancount) == (0x1234, 0, 1, 1, 0)
    assert asked.qd[0].qname == b"www.example.com."
    assert asked.qd[0].sprintf("%qtype%") == record
