"""The packet tracer: its formats against any bytes, what a forwarder reports and to whom, and that others go untold."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from frames import CLIENT, MAGLEV, MAGLEV_LINK, MAGLEV_MAC, RECORD_ROUTE, ROUTER_LINK, ROUTER_MAC, VIP, frame, tcp, udp
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from maglev import config
from maglev.conntrack import ConnectionTable
from maglev.errors import Reason
from maglev.fast.forwarder import FastForwarder
from maglev.flow import Flow, pack_address, selection_hash
from maglev.forwarding import Forwarder
from maglev.packets import flow_of, parse
from maglev.selection import MapBuilder
from maglev.trace import (
    I_TRACED,
    NO_SLOT,
    NOWHERE,
    REPORT_PORT,
    TRACE_ME,
    TRACER_BYTES,
    Chooser,
    Report,
    Tracer,
    datagram,
    pack_report,
    pack_tracer,
    parse_report,
    parse_tracer,
    read,
    with_checksum,
)

RECEIVER, PORT, NUMBER = "203.0.113.99", 40123, 77
TRACER = Tracer(pack_address(RECEIVER), PORT, NUMBER)
PAYLOAD = pack_tracer(TRACER)
MAGLEVS = {"m1": MAGLEV, "m2": "10.1.2.2", "m3": "10.1.3.2"}
ENDPOINTS = [f"10.2.{number}.2" for number in range(1, 6)]
IDLE_S = 60.0
LINK = MAGLEV_LINK + ROUTER_LINK

addresses = st.binary(min_size=16, max_size=16)
numbers = st.integers(0, (1 << 32) - 1)
ports = st.integers(0, 65535)
names = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=63)


# --- formats ---------------------------------------------------------------------------------------------------------


def test_a_tracer_packet_is_as_the_table_says():
    """Byte by byte, so that other programs may write them."""
    assert (
        b"trace me" + b"\x01" + b"\x00" + (40123).to_bytes(2, "big") + (77).to_bytes(4, "big")
        + bytes(10) + b"\xff\xff" + bytes([203, 0, 113, 99])
    ) == PAYLOAD  # fmt: skip
    assert parse_tracer(PAYLOAD) == TRACER
    assert len(PAYLOAD) == TRACER_BYTES


@pytest.mark.parametrize(
    "receiver", ["0.0.0.0", "127.0.0.1", "224.0.0.251", "255.255.255.255", "240.0.0.1", "::", "::1", "ff02::1"]
)
def test_a_receiver_is_one_machine(receiver):
    assert parse_tracer(pack_tracer(TRACER._replace(receiver=pack_address(receiver)))) is None


@pytest.mark.parametrize(("at", "value"), [(0, ord("T")), (7, 0), (8, 0), (8, 2), (9, 1)])
def test_what_does_not_say_trace_me_is_none(at, value):
    assert parse_tracer(PAYLOAD[:at] + bytes([value]) + PAYLOAD[at + 1 :]) is None


def test_port_0_is_no_receiver():
    assert parse_tracer(pack_tracer(TRACER._replace(port=0))) is None


@given(st.binary(max_size=80))
def test_any_payload_is_a_tracer_or_none(payload):
    for whole in (payload, TRACE_ME + payload, PAYLOAD[:10] + payload):
        found = parse_tracer(whole)
        assert found is None or pack_tracer(found) == whole[:TRACER_BYTES]


@st.composite
def reports(draw):
    flow = Flow(draw(addresses), draw(addresses), draw(st.integers(0, 255)), draw(ports), draw(ports))
    return Report(
        draw(names), draw(numbers), draw(st.sampled_from(Chooser)), flow, draw(names),
        draw(st.integers(0, (1 << 64) - 1)), draw(numbers), draw(addresses), draw(addresses), draw(names),
    )  # fmt: skip


@given(reports())
def test_a_report_is_read_as_it_was_written(report):
    assert parse_report(pack_report(report)) == report


@given(st.binary(max_size=300), reports(), st.data())
def test_any_bytes_are_a_report_or_none(noise, report, data):
    sound = pack_report(report)
    at = data.draw(st.integers(0, len(sound) - 1))
    for spoilt in (
        noise,
        I_TRACED + noise,
        sound[:at],
        sound[:at] + noise,
        sound + b"\0",
        sound[:at] + b"\xff" + sound[at + 1 :],
    ):
        found = parse_report(spoilt)
        assert found is None or pack_report(found)[:11] == spoilt[:11]
    assert parse_report(sound[:at]) is None, "a report that was cut short is none"
    assert parse_report(sound + b"\0") is None, "nor is one with more behind it"


@pytest.mark.parametrize("size", [0, 1, 31, 32])
@pytest.mark.parametrize(("own", "receiver"), [("10.1.1.2", "203.0.113.9"), ("fd00::1", "2001:db8::9")])
def test_a_datagram_is_one_by_scapys_reckoning(own, receiver, size):
    payload = random.Random(size).randbytes(size)
    sent = datagram(pack_address(own), 9401, pack_address(receiver), 53, payload)
    version = ip_address(own).version
    layer = IP if version == 4 else IPv6
    read_back = layer(sent)
    assert (read_back.src, read_back.dst, read_back[UDP].sport, read_back[UDP].dport) == (own, receiver, 9401, 53)
    assert bytes(read_back[UDP].payload) == payload
    for part in (read_back, read_back[UDP]):
        for field in ("chksum", "len", "plen"):
            if field in part.fields:
                del part.fields[field]
    assert bytes(read_back) == sent, "lengths and checksums should be those that Scapy works out"


@pytest.mark.parametrize(("source", "destination"), [("10.0.1.2", "192.0.2.1"), ("fd00::1", "2001:db8::1")])
def test_a_tcp_checksum_is_scapys(source, destination):
    layer = IP if ip_address(source).version == 4 else IPv6
    expected = bytes(layer(src=source, dst=destination) / TCP(sport=1, dport=80, flags="A", seq=5) / Raw(PAYLOAD))
    body = expected[20 if layer is IP else 40 :]
    unfinished = body[:16] + b"\0\0" + body[18:]
    assert with_checksum(pack_address(source), pack_address(destination), 6, unfinished, 16) == body


# --- which packets are tracers ---------------------------------------------------------------------------------------

TRACED = {
    "tcp": tcp("A", payload=PAYLOAD),
    "a SYN": tcp("S", payload=PAYLOAD),
    "udp": udp(payload=PAYLOAD),
    "IP options": tcp("A", payload=PAYLOAD, options=[RECORD_ROUTE]),
    "padded": udp(payload=PAYLOAD) + bytes(6),
    "the first of fragments": udp(payload=PAYLOAD, flags="MF"),
}
NOT_TRACED = {
    "another payload": tcp("A", payload=bytes(TRACER_BYTES)),
    "none": tcp("A"),
    "a byte more": udp(payload=PAYLOAD + b"\0"),
    "a byte less": udp(payload=PAYLOAD[:-1]),
    "further in": tcp("A", payload=b"\0" + PAYLOAD),
    "TCP options": frame(TCP(dport=80, flags="A", options=[("NOP", None)] * 4), Raw(PAYLOAD)),
    "instead of TCP options": frame(TCP(dport=80, flags="A", dataofs=13), Raw(PAYLOAD)),
    "beyond UDP's length": frame(UDP(sport=9, dport=53, len=8), Raw(PAYLOAD)),
    "a later fragment": frame(Raw(PAYLOAD), proto=17, frag=3),
    "ESP": frame(Raw(PAYLOAD), proto=50),
}


@pytest.mark.parametrize("what", TRACED)
def test_a_tracer_packet_is_known(what):
    assert read(parse(TRACED[what])) == TRACER


@pytest.mark.parametrize("what", NOT_TRACED)
def test_any_other_packet_is_none(what):
    assert read(parse(NOT_TRACED[what])) is None


# --- what forwarders say ---------------------------------------------------------------------------------------------


def vips(maglevs=("m1",), down=(), **more):
    document = {
        "maglevs": [{"name": name, "address": MAGLEVS[name]} for name in maglevs],
        "pools": {"web": {"endpoints": [{"address": address} for address in ENDPOINTS]}},
        "vips": [
            {"name": "www", "address": VIP, "protocol": "tcp", "port": 80, "pool": "web"} | more,
            {"name": "dns", "address": VIP, "protocol": "udp", "port": 53, "pool": "web"} | more,
        ],
        "forwarder": {"table_size": 251},
    }
    return MapBuilder().build(config.parse(str(document)), "default", lambda member: str(member.address) not in down)


def reference(vip_map=None, maglev="m1", **options):
    own = pack_address(MAGLEVS[maglev])
    return Forwarder(own, ConnectionTable(100, IDLE_S), vip_map or vips(), name=maglev, **options)


def compiled(vip_map=None, maglev="m1", **options):
    own = pack_address(MAGLEVS[maglev])
    return FastForwarder(own, 100, IDLE_S, vip_map or vips(), name=maglev, **options)


@pytest.fixture(params=[reference, compiled])
def make(request):
    return request.param


def said(decision):
    """The report that came with a decision, read from the packet by Scapy; None if there is none."""
    if not decision.answer:
        return None
    packet = IP(decision.answer)
    assert (packet[UDP].sport, packet[UDP].dport) == (REPORT_PORT, PORT)
    assert packet.dst == RECEIVER
    found = parse_report(bytes(packet[UDP].payload))
    assert found is not None, "it should be a report"
    assert packet.src == MAGLEVS[found.maglev], "from the Maglev's own address"
    return found


@pytest.mark.parametrize("raw", [tcp("A", payload=PAYLOAD), tcp("S", payload=PAYLOAD), udp(payload=PAYLOAD)])
def test_a_new_flow_is_chosen_by_the_lookup_table(make, raw):
    forwarder = make()
    decision, flow = forwarder.decide(raw, 5.25), flow_of(parse(raw))[0]
    slot = selection_hash(flow) % 251
    report = said(decision)
    assert decision.packet[24:] == raw[14:], "the packet itself should go on unchanged"
    assert decision.endpoint == vips().pools["web"].slots[slot]
    vip = "www" if flow.protocol == 6 else "dns"
    assert report == Report("m1", NUMBER, Chooser.LOOKUP_TABLE, flow, vip, 5_250_000, slot, decision.endpoint)


def test_a_known_flow_is_chosen_by_the_connection_table(make):
    """Also where the lookup table has changed meanwhile."""
    forwarder = make()
    first = forwarder.decide(tcp("S"), 0.0)
    others = [address for address in ENDPOINTS if pack_address(address) != first.endpoint]
    for down in others:
        forwarder.vips = vips(down=[down])
        decision = forwarder.decide(tcp("A", payload=PAYLOAD), 1.0)
        assert decision.endpoint == first.endpoint
        assert said(decision)[2:3] == (Chooser.CONNECTION_TABLE,)
        assert said(decision).slot == NO_SLOT


def test_a_tracer_packet_is_no_use_of_a_connection(make):
    """It must not keep alive what it looks at."""
    forwarder = make()
    forwarder.decide(tcp("S"), 0.0)
    assert said(forwarder.decide(tcp("A", payload=PAYLOAD), 40.0)).chooser is Chooser.CONNECTION_TABLE
    assert said(forwarder.decide(tcp("A", payload=PAYLOAD), 61.0)).chooser is Chooser.LOOKUP_TABLE


def test_a_connection_that_its_vip_has_forgotten_is_selected_anew(make):
    forwarder = make(vips(idle_timeout_s=10.0))
    forwarder.decide(tcp("S"), 0.0)
    assert said(forwarder.decide(tcp("A", payload=PAYLOAD), 9.0)).chooser is Chooser.CONNECTION_TABLE
    assert said(forwarder.decide(tcp("A", payload=PAYLOAD), 11.0)).chooser is Chooser.LOOKUP_TABLE


DROPS = [
    (tcp("A", dport=81, payload=PAYLOAD), {}, Reason.NO_VIP_PORT),
    (tcp("A", payload=PAYLOAD), {"down": ENDPOINTS}, Reason.NO_BACKEND),
]


@pytest.mark.parametrize(("raw", "changes", "reason"), DROPS)
def test_a_drop_is_reported_with_its_reason(make, raw, changes, reason):
    decision = make(vips(**changes)).decide(raw, 0.0)
    assert decision.reason is reason
    assert said(decision).reason == reason.value
    assert (said(decision).chooser, said(decision).target) == (Chooser.NOBODY, NOWHERE)


@pytest.mark.parametrize("what", NOT_TRACED)
def test_any_other_packet_is_never_reported(make, what):
    assert make().decide(NOT_TRACED[what], 0.0).answer == b""


def test_a_packet_for_no_vip_is_never_reported(make):
    """A Maglev says nothing about other people's traffic."""
    decision = make().decide(tcp("A", payload=PAYLOAD, destination="198.51.100.1"), 0.0)
    assert (decision.reason, decision.answer) == (Reason.NOT_VIP, b"")


def test_a_receiver_of_a_family_that_the_maglev_has_not_is_not_told(make):
    payload = pack_tracer(TRACER._replace(receiver=pack_address("2001:db8::9")))
    decision = make().decide(tcp("A", payload=payload), 0.0)
    assert decision.reason is None, "the packet should go on all the same"
    assert decision.answer == b""


def test_reports_are_limited_and_packets_are_not(make):
    forwarder = make(trace_reports_per_s=2.0)
    decisions = [forwarder.decide(tcp("A", sport=port, payload=PAYLOAD), 0.0) for port in range(5000, 5020)]
    assert sum(bool(decision.answer) for decision in decisions) == 2
    assert all(decision.reason is None for decision in decisions)
    later = [forwarder.decide(tcp("A", sport=port, payload=PAYLOAD), 0.5) for port in range(5000, 5020)]
    assert sum(bool(decision.answer) for decision in later) == 1


def test_no_rate_is_no_report(make):
    forwarder = make(trace_reports_per_s=0.0)
    assert forwarder.decide(tcp("A", payload=PAYLOAD), 0.0).answer == b""


# --- fragments -------------------------------------------------------------------------------------------------------


def pieces(identification=7):
    """A datagram that says "trace me", in three fragments."""
    whole = IP(src=CLIENT, dst=VIP, id=identification) / UDP(sport=40000, dport=53) / Raw(PAYLOAD + bytes(400))
    return [bytes(Ether(src=ROUTER_MAC, dst=MAGLEV_MAC) / piece) for piece in IP(bytes(whole)).fragment(fragsize=200)]


def from_peer(decision):
    """The frame in which a Maglev's redirected packet arrives at another."""
    assert IP(decision.packet).haslayer(GRE)
    return LINK + b"\x08\x00" + decision.packet


def test_a_redirected_fragment_is_reported_by_both_maglevs(make):
    served = vips(MAGLEVS)
    maglevs = {name: make(served, name) for name in MAGLEVS}
    first, middle, last = pieces()
    owners = {name: maglevs[name].decide(first, 0.0) for name in MAGLEVS}
    owner = next(name for name, decision in owners.items() if decision.vip)
    other = next(name for name in MAGLEVS if name != owner)
    sent_on = owners[other]
    report = said(sent_on)
    assert report.chooser is Chooser.FRAGMENT_OWNER
    assert (report.maglev, report.target, report.vip) == (other, pack_address(MAGLEVS[owner]), "")
    taken = maglevs[owner].decide(from_peer(sent_on), 0.1)
    report = said(taken)
    assert (report.maglev, report.came_from) == (owner, pack_address(MAGLEVS[other]))
    assert report.chooser is Chooser.CONNECTION_TABLE, "it had the first fragment once already"
    assert report.target == taken.endpoint
    for raw in (middle, last):
        assert said(maglevs[other].decide(raw, 0.1)) is None, "what a later fragment belongs to, nobody can see"
        report = said(maglevs[owner].decide(raw, 0.2))
        assert (report.chooser, report.target) == (Chooser.FRAGMENT_TABLE, taken.endpoint)
        assert report.flow == flow_of(parse(first))[0], "the flow is that of the whole packet"


def test_fragments_that_waited_for_the_first_are_reported_with_it(make):
    forwarder = make()
    first, middle, last = pieces()
    assert [forwarder.decide(raw, 0.0).reason for raw in (last, middle)] == [Reason.HELD, Reason.HELD]
    found = [said(decision).chooser for decision in forwarder.decide(first, 0.1).all()]
    assert found == [Chooser.LOOKUP_TABLE, Chooser.FRAGMENT_TABLE, Chooser.FRAGMENT_TABLE]


def test_fragments_of_any_other_packet_are_never_reported(make):
    whole = IP(src=CLIENT, dst=VIP, id=9) / UDP(sport=40000, dport=53) / Raw(bytes(400))
    forwarder = make()
    for piece in IP(bytes(whole)).fragment(fragsize=200):
        assert forwarder.decide(bytes(Ether(src=ROUTER_MAC, dst=MAGLEV_MAC) / piece), 0.0).answer == b""
