"""ICMP through the forwarder: errors to the endpoint of the flow they quote, and answers to what does not fit."""

from __future__ import annotations

import pytest
from forwarders import (
    ENDPOINTS,
    ENDPOINTS6,
    IDLE_S,
    VIPS,
    a_map,
    all_decided,
    another,
    by_hash,
    decided,
    inner,
    outer,
    pin,
    text,
)
from frames import (
    CLIENT,
    CLIENT6,
    MAGLEV,
    RECORD_ROUTE,
    VIP,
    VIP6,
    fragments,
    frame,
    frame6,
    ping,
    ping6,
    tcp,
    tcp6,
    udp,
    udp6,
)
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.packet import Raw
from test_icmp import ERRORS, ERRORS6, ROUTER, ROUTER6

from maglev.errors import Reason

SITE = a_map()
QUOTED = IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=40000)
QUOTED6 = IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=80, dport=40000)
FROM_VIP6 = {"source": ROUTER6, "destination": VIP6}


def error(kind="fragmentation needed", quoted=QUOTED):
    return frame(ERRORS[kind], Raw(bytes(quoted)), source=ROUTER)


def error6(kind="packet too big", quoted=QUOTED6):
    return frame6(ERRORS6[kind], Raw(bytes(quoted)), **FROM_VIP6)


EVERY_ERROR = [(error, kind, tcp, "www", "web") for kind in ERRORS]
EVERY_ERROR += [(error6, kind, tcp6, "www6", "web6") for kind in ERRORS6]
every_error = pytest.mark.parametrize(
    ("make", "kind", "packet", "vip", "pool"), EVERY_ERROR, ids=[f"{case[3]} {case[1]}" for case in EVERY_ERROR]
)


@every_error
def test_an_error_goes_to_the_endpoint_of_the_flow_it_quotes(new_forwarder, make, kind, packet, vip, pool):
    decision = new_forwarder(SITE).decide(make(kind), 0.0)
    assert decided(decision) == f"{by_hash(packet('A'), SITE, pool)} for {vip}"
    assert inner(decision) == make(kind)[14:], "and goes there whole"


@every_error
def test_an_error_goes_to_the_endpoint_that_the_table_names(new_forwarder, make, kind, packet, vip, pool):
    subject = new_forwarder(SITE)
    kept = another(by_hash(packet(), SITE, pool))
    pin(subject, packet(), kept)
    assert decided(subject.decide(make(kind), 1.0)) == f"{kept} for {vip}", "whose packet it was that did not arrive"


def test_a_pinned_endpoint_that_died_gets_no_errors(new_forwarder):
    subject = new_forwarder(SITE)
    kept = another(by_hash(tcp(), SITE))
    pin(subject, tcp(), kept)
    subject.vips = a_map(down=[kept])
    assert text(subject.decide(error(), 1.0).endpoint) == by_hash(tcp(), subject.vips)


def test_an_error_is_no_use_of_its_connection(new_forwarder):
    """Anybody can send errors: they must not keep a dead connection in the table, nor make one."""
    subject = new_forwarder(SITE)
    kept = another(by_hash(tcp(), SITE))
    pin(subject, tcp(), kept)
    assert text(subject.decide(error(), IDLE_S - 0.1).endpoint) == kept
    assert text(subject.decide(error(), IDLE_S).endpoint) == by_hash(tcp(), SITE), "60 s after its last packet"
    fresh = new_forwarder(SITE)
    fresh.decide(error(), 0.0)
    assert len(fresh.connections) == 0, "an error should be recorded nowhere"


@pytest.mark.parametrize("kind", ["time exceeded", "port unreachable"])
def test_an_error_about_udp_goes_where_its_flow_goes(new_forwarder, kind):
    answer = IP(src=VIP, dst=CLIENT) / UDP(sport=53, dport=40000) / Raw(b"192.0.2.7")
    decision = new_forwarder(SITE).decide(error(kind, answer), 0.0)
    assert decided(decision) == f"{by_hash(udp(), SITE)} for dns"


def test_errors_about_answers_to_pings_go_where_the_pings_go(new_forwarder):
    subject = new_forwarder(SITE)
    echo, echo6 = IP(src=VIP, dst=CLIENT) / ICMP(type="echo-reply"), IPv6(src=VIP6, dst=CLIENT6) / ICMPv6EchoReply()
    for about, a_ping in ((error(quoted=echo), ping()), (error6(quoted=echo6), ping6())):
        assert subject.decide(about, 0.0).endpoint == subject.decide(a_ping, 0.0).endpoint


UNRELATED = [
    ("somebody else's flow", error(quoted=IP(src="192.0.2.9", dst=CLIENT) / TCP(sport=80)), Reason.ICMP_UNRELATED),
    ("the client's own packet", error(quoted=IP(src=CLIENT, dst=VIP) / TCP(dport=80)), Reason.ICMP_UNRELATED),
    ("a packet of the other version", error(quoted=QUOTED6), Reason.ICMP_UNRELATED),
    ("half an IP header", error(quoted=bytes(QUOTED)[:19]), Reason.ICMP_UNRELATED),
    ("an IP header and half the ports", error(quoted=bytes(QUOTED)[:22]), Reason.ICMP_UNRELATED),
    ("nothing", error(quoted=b""), Reason.ICMP_UNRELATED),
    ("IPv6, an IP header alone", error6(quoted=bytes(QUOTED6)[:40]), Reason.ICMP_UNRELATED),
    ("IPv6, somebody else's flow", error6(quoted=IPv6(src=CLIENT6, dst=VIP6) / TCP(dport=80)), Reason.ICMP_UNRELATED),
    ("a port without VIP", error(quoted=IP(src=VIP, dst=CLIENT) / TCP(sport=81)), Reason.NO_VIP_PORT),
    ("a protocol without VIP", error(quoted=IP(src=VIP, dst=CLIENT, proto=50) / Raw(bytes(8))), Reason.NO_VIP_PORT),
    ("a flow, but sent to no VIP", frame(ERRORS["time exceeded"], QUOTED, destination="192.0.2.9"), Reason.NOT_VIP),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "expected"), UNRELATED, ids=[case[0] for case in UNRELATED])
def test_an_error_that_is_about_no_flow_of_ours_is_dropped(new_forwarder, name, raw, expected):
    decision = new_forwarder(SITE).decide(raw, 0.0)
    assert decision.reason == expected, f"about {name}: should have been {expected}, but was {decided(decision)}"
    assert decision.answer == b""


def test_an_error_about_a_flow_without_healthy_endpoint_is_dropped(new_forwarder):
    subject = new_forwarder(a_map(down=ENDPOINTS))
    assert subject.decide(error(), 0.0).reason == Reason.NO_BACKEND


def test_echo_is_no_error_whatever_it_carries(new_forwarder):
    subject = new_forwarder(SITE)
    pin(subject, tcp(), another(by_hash(ping(), SITE)))
    for kind in ("echo-request", "echo-reply"):
        raw = frame(ICMP(type=kind), Raw(bytes(QUOTED)))
        assert text(subject.decide(raw, 0.0).endpoint) == by_hash(ping(), SITE), "by the 3-tuple, not by what it holds"


# --- packets that are too big ----------------------------------------------------------------------------------------

MTU_BYTES = 1500
# The link carries 1,500 bytes; what is left for a client's packet is told to it.
LARGEST, LARGEST6 = MTU_BYTES - 24, MTU_BYTES - 44


def of_size(size, flags="A", **ip):
    return tcp(flags, payload=bytes(size - 40), ip_flags="DF", **ip)


def of_size6(size, flags="A", **ip):
    return tcp6(flags, payload=bytes(size - 60), **ip)


def narrow(new_forwarder, vips=SITE, **options):
    subject = new_forwarder(vips, **options)
    subject.mtu_bytes = MTU_BYTES
    return subject


def test_the_largest_packets_that_fit_are_forwarded_and_one_byte_more_is_answered(new_forwarder):
    subject = narrow(new_forwarder)
    for make, largest, vip in ((of_size, LARGEST, "www"), (of_size6, LARGEST6, "www6")):
        fits = subject.decide(make(largest), 0.0)
        assert (fits.vip, len(fits.packet)) == (vip, MTU_BYTES)
        decision = subject.decide(make(largest + 1), 0.0)
        assert (decision.reason, decision.packet, decision.more) == (Reason.TOO_BIG, b"", ())
        assert decision.answer, "its sender should be told"


def test_scapy_reads_what_the_sender_is_told(new_forwarder):
    subject = narrow(new_forwarder)
    raw = subject.decide(of_size(1500), 0.0).answer
    answer = IP(raw)
    assert (answer.src, answer.dst, answer[ICMP].type, answer[ICMP].code) == (VIP, CLIENT, 3, 4)
    assert (answer[ICMP].nexthopmtu, raw[28:]) == (LARGEST, of_size(1500)[14 : 14 + 548])
    raw = subject.decide(of_size6(1500), 0.0).answer
    answer = IPv6(raw)
    assert (answer.src, answer.dst, answer[ICMPv6PacketTooBig].mtu) == (VIP6, CLIENT6, LARGEST6)
    assert raw[48:] == of_size6(1500)[14 : 14 + 1232]


def test_what_is_told_is_the_room_on_the_way_to_the_endpoint_chosen(new_forwarder):
    """A client of IPv4 whose endpoint is reached over IPv6 has 20 bytes less, and the other way round 20 more."""
    vips = [{**VIPS[0], "pool": "web6"}, {**VIPS[2], "pool": "web"}]
    subject = narrow(new_forwarder, a_map(vips=vips))
    assert IP(subject.decide(of_size(1500), 0.0).answer)[ICMP].nexthopmtu == LARGEST6
    assert IPv6(subject.decide(of_size6(1500), 0.0).answer)[ICMPv6PacketTooBig].mtu == LARGEST
    assert outer(subject.decide(of_size(LARGEST6), 0.0)).version == 6
    assert outer(subject.decide(of_size6(LARGEST), 0.0)).version == 4


def test_a_sender_that_heeds_the_answer_gets_through(new_forwarder):
    subject = narrow(new_forwarder)
    told = IP(subject.decide(of_size(1500), 0.0).answer)[ICMP].nexthopmtu
    assert subject.decide(of_size(told), 0.0).vip == "www"


def test_errors_are_never_answered(new_forwarder):
    """RFC 1122 §3.2.2, RFC 4443 §2.4 e: or two machines would complain to each other for ever."""
    subject = narrow(new_forwarder)
    long_one = frame(ERRORS["time exceeded"], QUOTED, Raw(bytes(1500)), source=ROUTER, flags="DF")
    long_one6 = frame6(ERRORS6["time exceeded"], QUOTED6, Raw(bytes(1500)), **FROM_VIP6)
    for raw in (long_one, long_one6):
        decision = subject.decide(raw, 0.0)
        assert (decision.reason, decision.answer) == (Reason.TOO_BIG, b"")


def test_a_ping_that_is_too_big_is_answered(new_forwarder):
    subject = narrow(new_forwarder)
    assert subject.decide(ping(payload=bytes(1500), flags="DF"), 0.0).answer
    assert subject.decide(frame6(ICMPv6EchoReply(data=bytes(1500))), 0.0).answer


def test_only_the_first_fragment_is_answered(new_forwarder):
    """RFC 1122 §3.2.2: of a packet in fragments only the first shows whom it was for."""
    subject = narrow(new_forwarder)
    first = frame6(IPv6ExtHdrFragment(nh=17, m=1, id=5), UDP(dport=53, len=2900), Raw(bytes(1440)), nh=44)
    later = frame6(IPv6ExtHdrFragment(nh=17, offset=181, id=5), Raw(bytes(1448)), nh=44)
    told, silent = subject.decide(first, 0.0), subject.decide(later, 0.0)
    assert (told.reason, bool(told.answer)) == (Reason.TOO_BIG, True)
    assert (silent.reason, silent.answer) == (Reason.TOO_BIG, b"")


def test_answers_are_rationed(new_forwarder):
    subject = narrow(new_forwarder, icmp_errors_per_s=2.0)
    times = (10.0, 10.0, 10.0, 10.4, 10.5, 10.5, 11.5, 11.5, 11.5)
    answered = [bool(subject.decide(of_size(1500), now).answer) for now in times]
    assert answered == [True, True, False, False, True, False, True, True, False]
    assert subject.decide(of_size6(1500), 11.5).answer == b"", "both versions have one ration"


def test_a_ration_of_none_answers_nobody(new_forwarder):
    subject = narrow(new_forwarder, icmp_errors_per_s=0.0)
    decisions = [subject.decide(of_size(1500), now) for now in (0.0, 1.0, 1e6)]
    assert [(each.reason, each.answer) for each in decisions] == [(Reason.TOO_BIG, b"")] * 3


@pytest.mark.parametrize("options", [[], [RECORD_ROUTE]], ids=["plain", "IP options"])
@pytest.mark.parametrize("pool", ["web", "web6"])
def test_what_routers_may_cut_is_cut_and_scapy_puts_it_together(new_forwarder, options, pool):
    subject = narrow(new_forwarder, a_map(vips=[{**VIPS[1], "pool": pool}]))
    raw = udp(payload=bytes(range(256)) * 16, id=9, options=options)
    decisions = list(subject.decide(raw + bytes(4), 0.0).all())
    assert len(decisions) == 3, f"4,104 bytes should fit into three packets, not {len(decisions)}"
    assert {decided(each) for each in decisions} == {f"{by_hash(raw, subject.vips, pool)} for dns"}
    assert all(len(each.packet) <= MTU_BYTES for each in decisions), [len(each.packet) for each in decisions]
    assert [each.answer for each in decisions] == [b""] * 3, "its sender has nothing to mend"
    [whole] = defragment([IP(inner(each)) for each in decisions])
    assert bytes(whole.payload) == bytes(IP(raw[14:]).payload), "the endpoint should get what the client sent"


def test_a_fragment_that_does_not_fit_is_cut_again(new_forwarder):
    subject = narrow(new_forwarder)
    subject.mtu_bytes = 150
    decisions = all_decided(subject, fragments())
    assert max(len(each.packet) for each in decisions) <= 150
    assert {each.vip for each in decisions} == {"dns"}
    [whole] = defragment([IP(inner(each)) for each in decisions])
    assert bytes(whole[UDP].payload) == bytes(range(256)) * 2


@pytest.mark.parametrize("mtu_bytes", range(60, 100))
def test_a_link_too_narrow_for_a_fragment_cuts_nothing_and_upsets_nobody(new_forwarder, mtu_bytes):
    subject = new_forwarder(SITE)
    subject.mtu_bytes = mtu_bytes
    raw = udp(payload=bytes(100), options=[RECORD_ROUTE])
    decisions = list(subject.decide(raw, 0.0).all())
    if mtu_bytes < 24 + 32 + 8:  # GRE, the header with its options, and eight bytes
        assert [each.reason for each in decisions] == [Reason.TOO_BIG]
    else:
        assert all(each.vip and len(each.packet) <= mtu_bytes for each in decisions)


def test_a_packet_that_does_not_fit_counts_as_one_use_of_its_connection(new_forwarder):
    """The fast path looks, then leaves it to the reference: the table must not count an overflow twice."""
    subject = narrow(new_forwarder, capacity=1)
    subject.decide(tcp("S"), 0.0)
    subject.decide(of_size(1500, sport=41000), 0.0)
    assert (subject.connections.overflows, len(subject.connections)) == (1, 1)


def test_both_families_are_reached_only_from_an_address_of_each(new_forwarder):
    subject = new_forwarder(a_map(vips=[{**VIPS[0], "pool": "web6"}, {**VIPS[2], "pool": "web"}]), own=[MAGLEV])
    assert subject.decide(tcp(), 0.0).reason == Reason.NO_NEXT_HOP, "a Maglev of IPv4 cannot reach endpoints of IPv6"
    decision = subject.decide(tcp6(), 0.0)
    assert text(decision.endpoint) in ENDPOINTS, "but serves clients of IPv6 from those of IPv4"
    assert inner(decision) == tcp6()[14:]


@pytest.mark.parametrize("raw", [tcp6(), tcp6("A"), udp6(), ping6()], ids=["SYN", "ACK", "UDP", "ping"])
def test_ipv6_goes_by_the_hash_to_endpoints_of_ipv6(new_forwarder, raw):
    decision = new_forwarder(SITE).decide(raw + bytes(5), 0.0)
    assert text(decision.endpoint) == by_hash(raw, SITE, "web6")
    assert text(decision.endpoint) in ENDPOINTS6
    assert inner(decision) == raw[14:], "the padding should have been cut off, and nothing else"
