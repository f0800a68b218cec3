"""The forwarder's decisions: each rule of Maglev §3.3 as a case, and that nothing which may arrive upsets it."""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_address

import pytest
from frames import (
    CLIENT,
    MAGLEV,
    RECORD_ROUTE,
    VIP,
    changed,
    fragments,
    frame,
    ping,
    sent,
    tcp,
    udp,
    with_sound_checksum,
)
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, GRE, Ether

from maglev import config
from maglev.conntrack import ConnectionTable
from maglev.errors import NO_DROPS, Reason
from maglev.fast.forwarder import FastForwarder
from maglev.flow import Flow, pack_address, selection_hash, unpack_address
from maglev.forwarding import Decision, Forwarder, Statistics
from maglev.packets import flow_of, parse
from maglev.selection import MapBuilder

ENDPOINTS = [f"10.2.{number}.2" for number in range(1, 6)]
PACKED = {pack_address(address) for address in ENDPOINTS}
IDLE_S = 60.0
CLUSTER = {
    "maglevs": [{"name": "m1", "address": MAGLEV}],
    "pools": {
        "web": {"endpoints": [{"address": address} for address in ENDPOINTS]},
        "names": {"endpoints": [{"address": "10.3.1.2"}]},
    },
    "vips": [
        {"name": "www", "address": VIP, "protocol": "tcp", "port": 80, "pool": "web"},
        {"name": "dns", "address": VIP, "protocol": "udp", "port": 53, "pool": "names"},
    ],
    "forwarder": {"table_size": 251},
}


def cluster(weights=None, **changes):
    document = {**CLUSTER, **changes}
    endpoints = [{"address": address, "weight": (weights or {}).get(address, 1)} for address in ENDPOINTS]
    document["pools"] = {**CLUSTER["pools"], "web": {"endpoints": endpoints}}
    return config.parse(str(document))


def vips(weights=None, down=(), **changes):
    down = {ip_address(address) for address in down}
    return MapBuilder().build(cluster(weights, **changes), "default", lambda member: member.address not in down)


ALL_HEALTHY = vips()


def reference(capacity=1000, vip_map=ALL_HEALTHY, maglev=MAGLEV):
    return Forwarder(pack_address(maglev), ConnectionTable(capacity, IDLE_S), vip_map)


def compiled(capacity=1000, vip_map=ALL_HEALTHY, maglev=MAGLEV):
    return FastForwarder(pack_address(maglev), capacity, IDLE_S, vip_map)


@pytest.fixture(scope="module", params=[reference, compiled], autouse=True)
def forwarder_of_this_round(request):
    """Runs every test twice: with the reference, and with the fast path that hands it what is rare."""
    global forwarder
    forwarder = request.param


forwarder = reference


def flow(raw):
    return flow_of(parse(raw))[0]


def by_hash(raw, vip_map=ALL_HEALTHY):
    """The endpoint that consistent hashing gives the flow of a frame, worked out aside from the forwarder."""
    slots = vip_map.pools["web"].slots
    return slots[selection_hash(flow(raw)) % len(slots)]


def another(endpoint):
    """An endpoint other than the one that is given."""
    return min(PACKED - {endpoint})


def shown(decision):
    if decision.reason is not None:
        return str(decision.reason)
    return f"{unpack_address(decision.endpoint)} for {decision.vip}"


def expect(decision, endpoint, why):
    right = unpack_address(endpoint)
    assert decision.endpoint == endpoint, f"{why}: should have gone to {right}, but the decision was {shown(decision)}"


# name, frame, the reason or the VIP that it is forwarded for
FATES = [
    ("SYN", tcp("S"), "www"),
    ("SYN with ECN", tcp("SEC"), "www"),
    ("ACK of an unknown flow", tcp("A"), "www"),
    ("SYN+ACK", tcp("SA"), "www"),
    ("RST", tcp("R"), "www"),
    ("TCP without flags", tcp(""), "www"),
    ("IP options before the ports", tcp(options=[RECORD_ROUTE]), "www"),
    ("Ethernet padding", tcp() + bytes(6), "www"),
    ("UDP", udp(), "dns"),
    ("ping", ping(), "www"),
    ("echo reply", frame(ICMP(type="echo-reply")), "www"),
    ("a TTL of 1", tcp(ttl=1), "www"),
    ("don't fragment", tcp(ip_flags="DF"), "www"),
    ("TCP to another port", tcp(dport=81), Reason.NO_VIP_PORT),
    ("TCP to port 0", tcp(dport=0), Reason.NO_VIP_PORT),
    ("UDP to the port of the TCP VIP", udp(dport=80), Reason.NO_VIP_PORT),
    ("TCP to the port of the UDP VIP", tcp(dport=53), Reason.NO_VIP_PORT),
    ("GRE to the VIP", frame(GRE(), proto=47), Reason.NO_VIP_PORT),
    ("ESP to the VIP", frame(bytes(8), proto=50), Reason.NO_VIP_PORT),
    ("TCP to another address", tcp(destination="192.0.2.9"), Reason.NOT_VIP),
    ("TCP to this Maglev itself", tcp(destination=MAGLEV), Reason.NOT_VIP),
    ("a fragment to another address", frame(b"x", destination="192.0.2.9", frag=5), Reason.NOT_VIP),
    ("malformed TCP to another address", frame(b"x", destination="192.0.2.9", proto=6), Reason.NOT_VIP),
    ("the first fragment", fragments()[0], "dns"),
    ("a middle fragment without its first", fragments()[1], Reason.HELD),
    ("the last fragment without its first", fragments()[-1], Reason.HELD),
    ("a first fragment to a port without VIP", fragments(dport=9)[0], Reason.NO_VIP_PORT),
    ("ARP", bytes(Ether() / ARP()), Reason.NOT_IP),
    ("nothing", b"", Reason.FRAME_TOO_SHORT),
    ("a frame cut in the IP header", tcp()[:30], Reason.FRAME_TOO_SHORT),
    ("IP version 6", changed(tcp(), 14, 0x65), Reason.BAD_IP_VERSION),
    ("IP header of 4 words", changed(tcp(), 14, 0x44), Reason.BAD_IP_HEADER_LENGTH),
    ("IP length below its header", with_sound_checksum(changed(tcp(), 16, 0, 19)), Reason.BAD_IP_TOTAL_LENGTH),
    ("a frame cut in the payload", tcp(payload=b"hello")[:-1], Reason.TRUNCATED),
    ("a wrong IP checksum", frame(TCP(), chksum=1), Reason.BAD_IP_CHECKSUM),
    ("half a TCP header", frame(bytes(TCP())[:12], proto=6), Reason.BAD_TRANSPORT_HEADER),
    ("half a UDP header", frame(bytes(4), proto=17), Reason.BAD_TRANSPORT_HEADER),
    ("half an ICMP header", frame(bytes(4), proto=1), Reason.BAD_TRANSPORT_HEADER),
    ("the largest packet that fits in GRE", tcp(payload=bytes(65511 - 40)), "www"),
    ("a packet too big for GRE that may not be cut", tcp(payload=bytes(65512 - 40), ip_flags="DF"), Reason.TOO_BIG),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "expected"), FATES, ids=[case[0] for case in FATES])
def test_every_kind_of_frame_has_its_fate(name, raw, expected):
    decision = forwarder().decide(raw, 0.0)
    if isinstance(expected, Reason):
        decided = decision._replace(answer=b"")
        assert decided == Decision(reason=expected), f"{name}: should have been {expected}, but was {shown(decision)}"
    else:
        assert (decision.vip, decision.reason) == (expected, None), f"{name}: not for {expected}: {shown(decision)}"
        endpoint = by_hash(raw) if expected == "www" else pack_address("10.3.1.2")
        expect(decision, endpoint, name)


def test_what_is_forwarded_is_the_clients_packet_in_gre_from_this_maglev():
    raw = tcp("A", payload=b"hello", tos=0xB8, options=[RECORD_ROUTE])
    decision = forwarder().decide(raw + bytes(9), 0.0)
    outer = IP(decision.packet)
    found = outer.src, pack_address(outer.dst), outer.tos, bytes(outer[GRE].payload)
    assert found == (MAGLEV, decision.endpoint, 0xB8, raw[14:]), f"Scapy finds {outer.summary()}"


def test_a_syn_selects_and_records():
    subject = forwarder()
    expect(subject.decide(tcp("S"), 0.0), by_hash(tcp()), "a SYN")
    recorded = subject.connections.lookup(flow(tcp()), 0.0)
    assert recorded == by_hash(tcp()), f"the SYN should have been recorded, but the table says {recorded}"


def test_a_syn_selects_even_where_there_is_an_entry_and_replaces_it():
    """A new connection may come from the ports of an old one; it owes that one's backend nothing."""
    subject = forwarder()
    subject.connections.record(flow(tcp()), another(by_hash(tcp())), 0.0)
    expect(subject.decide(tcp("S"), 1.0), by_hash(tcp()), "a SYN on the ports of an old connection")
    expect(subject.decide(tcp("A"), 2.0), by_hash(tcp()), "the ACK that follows it")


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "SA", ""])
def test_what_opens_no_connection_keeps_the_recorded_backend(flags):
    subject = forwarder()
    kept = another(by_hash(tcp()))
    subject.connections.record(flow(tcp()), kept, 0.0)
    expect(subject.decide(tcp(flags), 1.0), kept, f"TCP flags {flags or 'none'} of a known flow")


def test_an_unknown_flow_falls_back_to_the_hash_and_is_recorded():
    subject = forwarder()
    expect(subject.decide(tcp("A"), 0.0), by_hash(tcp()), "an ACK that was first seen by another Maglev")
    subject.vips = vips(weights={str(unpack_address(by_hash(tcp()))): 0})
    expect(subject.decide(tcp("A"), 1.0), by_hash(tcp()), "the next packet, though the tables have changed")


@pytest.mark.parametrize("flags", ["S", "A"])
def test_an_entry_whose_backend_became_unhealthy_is_selected_anew(flags):
    subject = forwarder()
    dead = subject.decide(tcp("S"), 0.0).endpoint
    subject.vips = vips(down=[str(unpack_address(dead))])
    successor = by_hash(tcp(), subject.vips)
    assert successor != dead, "the table should not name an unhealthy endpoint"
    expect(subject.decide(tcp(flags), 1.0), successor, "a flow whose endpoint died")
    subject.vips = ALL_HEALTHY
    expect(subject.decide(tcp("A"), 2.0), successor, "the same flow when the dead one is back: recorded anew")


def test_a_drained_backend_keeps_its_flows_and_gets_no_new_ones():
    subject = forwarder(capacity=10_000)
    opened = {port: subject.decide(tcp("S", sport=port), 0.0).endpoint for port in range(2000, 2200)}
    drained = pack_address(ENDPOINTS[0])
    assert drained in opened.values(), "some of 200 flows should have gone to the endpoint that is drained next"
    subject.vips = vips(weights={ENDPOINTS[0]: 0})
    moved = [port for port, was in opened.items() if subject.decide(tcp("A", sport=port), 1.0).endpoint != was]
    assert not moved, f"no flow should have moved, but {len(moved)} did"
    new = Counter(shown(subject.decide(tcp("S", sport=port), 2.0)) for port in range(3000, 3200))
    assert f"{ENDPOINTS[0]} for www" not in new, f"a drained endpoint should get no new flows: {dict(new)}"
    assert len(new) == 4, f"the other four should share the new flows: {dict(new)}"


def test_a_drained_backend_that_dies_loses_its_flows():
    subject = forwarder()
    subject.connections.record(flow(tcp()), pack_address(ENDPOINTS[0]), 0.0)
    subject.vips = vips(weights={ENDPOINTS[0]: 0}, down=ENDPOINTS[:1])
    expect(subject.decide(tcp("A"), 1.0), by_hash(tcp(), subject.vips), "a flow of a drained endpoint that died")


@pytest.mark.parametrize("capacity", [0, 3])
def test_a_full_table_selects_packet_by_packet_and_always_the_same(capacity):
    subject = forwarder(capacity)
    ports = range(2000, 2100)
    first = [subject.decide(tcp("S", sport=port), 0.0).endpoint for port in ports]
    expected = [by_hash(tcp(sport=port)) for port in ports]
    assert first == expected, "flows without an entry should go by the hash"
    assert len(subject.connections) == capacity, f"{capacity} flows should fit, not {len(subject.connections)}"
    again = [subject.decide(tcp("A", sport=port), 1.0).endpoint for port in ports]
    assert again == first, "every packet of a flow should go where the first one went"
    subject.vips = vips(weights=dict.fromkeys(ENDPOINTS[:4], 0))
    last = pack_address(ENDPOINTS[4])
    moved = [port for port, was in zip(ports[capacity:], first[capacity:], strict=True) if was != last]
    for port in moved:
        expect(subject.decide(tcp("A", sport=port), 2.0), last, "a flow without an entry, when the tables change")
    for port, was in zip(ports[:capacity], first[:capacity], strict=True):
        expect(subject.decide(tcp("A", sport=port), 2.0), was, "a flow with an entry, when the tables change")


@pytest.mark.parametrize("raw", [tcp("S"), tcp("A"), ping()], ids=["SYN", "ACK", "ping"])
def test_no_healthy_backend_drops(raw):
    subject = forwarder()
    subject.connections.record(flow(raw), pack_address(ENDPOINTS[0]), 0.0)
    subject.vips = vips(down=ENDPOINTS)
    decision = subject.decide(raw, 1.0)
    assert decision == Decision(reason=Reason.NO_BACKEND), f"should have been no_backend, but was {shown(decision)}"


def test_when_all_are_drained_old_flows_live_on_and_new_ones_are_dropped():
    subject = forwarder()
    kept = subject.decide(tcp("S"), 0.0).endpoint
    subject.vips = vips(weights=dict.fromkeys(ENDPOINTS, 0))
    expect(subject.decide(tcp("A"), 1.0), kept, "an old flow")
    new = subject.decide(tcp("S", sport=41000), 1.0)
    assert new.reason == Reason.NO_BACKEND, f"a new flow should have been dropped, but was {shown(new)}"


def test_all_pings_of_one_client_go_to_the_same_endpoint_and_clients_are_spread():
    subject = forwarder()
    for client in range(1, 100):
        source = f"203.0.113.{client}"
        pings = [ping(ident, sequence, source=source) for ident, sequence in [(1, 1), (1, 2), (99, 1)]]
        found = {subject.decide(raw, 0.0).endpoint for raw in pings}
        expected = by_hash(ping(source=source))
        assert found == {expected}, f"all pings of {source} should go to {unpack_address(expected)}"
    spread = {subject.decide(ping(source=f"203.0.113.{client}"), 0.0).endpoint for client in range(1, 100)}
    assert spread == PACKED, f"the pings of 99 clients should meet all five endpoints, not only {len(spread)}"


def test_udp_keeps_its_backend_while_the_tables_change():
    def names(*endpoints):
        pools = {**CLUSTER["pools"], "names": {"endpoints": [{"address": each, "weight": w} for each, w in endpoints]}}
        return MapBuilder().build(config.parse(str({**CLUSTER, "pools": pools})), "default", lambda member: True)

    subject = forwarder(vip_map=names(("10.3.1.2", 1)))
    was = subject.decide(udp(), 0.0).endpoint
    subject.vips = names(("10.3.1.2", 0), ("10.3.2.2", 1))
    expect(subject.decide(udp(), 1.0), was, "a UDP flow whose endpoint is drained")
    expect(subject.decide(udp(sport=41000), 1.0), pack_address("10.3.2.2"), "a new UDP flow")


def test_the_connection_table_outlives_a_new_map():
    subject = forwarder()
    opened = {port: subject.decide(tcp("S", sport=port), 0.0).endpoint for port in range(2000, 2200)}
    for change in ({"weights": {ENDPOINTS[1]: 5}}, {"forwarder": {"table_size": 257}}, {}):
        subject.vips = vips(**change)
        moved = [port for port, was in opened.items() if subject.decide(tcp("A", sport=port), 1.0).endpoint != was]
        assert not moved, f"no flow should have moved when {change or 'everything'} changed, but {len(moved)} did"


def test_an_entry_is_forgotten_when_idle_and_not_before():
    subject = forwarder()
    kept = another(by_hash(tcp()))
    subject.connections.record(flow(tcp()), kept, 0.0)
    for now in (59.0, 118.0, 177.9):
        expect(subject.decide(tcp("A"), now), kept, f"a flow never idle for a whole minute, at {now} s")
    expect(subject.decide(tcp("A"), 177.9 + IDLE_S), by_hash(tcp()), "a flow idle for a minute")


def test_maglevs_whose_files_are_in_another_order_choose_alike():
    backwards = {
        "vips": CLUSTER["vips"][::-1],
        "pools": {
            "names": CLUSTER["pools"]["names"],
            "web": {"endpoints": CLUSTER["pools"]["web"]["endpoints"][::-1]},
        },
        "maglevs": CLUSTER["maglevs"][::-1],
    }
    document = str({**backwards, "forwarder": CLUSTER["forwarder"]})
    other_map = MapBuilder().build(config.parse(document), "default", lambda member: True)
    one = forwarder()
    other = forwarder(1000, other_map, "10.1.2.2")
    generator = random.Random(1)
    for number in range(1000):
        source, sport = f"198.51.100.{generator.randrange(1, 255)}", generator.randrange(1024, 65536)
        raw = tcp("S" if number % 2 else "A", sport=sport, source=source)
        mine, theirs = one.decide(raw, 0.0), other.decide(raw, 0.0)
        expect(theirs, mine.endpoint, f"{flow(raw)} on the other Maglev")
        assert theirs.packet[12:16] == pack_address("10.1.2.2")[12:], "each should send from its own address"


def test_another_hash_can_be_put_in_its_place():
    subject = Forwarder(pack_address(MAGLEV), ConnectionTable(9, IDLE_S), ALL_HEALTHY, hash_flow=lambda flow: 3)
    expect(subject.decide(tcp(), 0.0), ALL_HEALTHY.pools["web"].slots[3], "a flow that hashes to 3")


def test_a_forwarder_without_a_configuration_ignores_everything():
    decision = Forwarder(pack_address(MAGLEV), ConnectionTable(9, IDLE_S)).decide(tcp(), 0.0)
    assert decision == Decision(reason=Reason.NOT_VIP), f"should have been not_vip, but was {shown(decision)}"


def is_packet_or_reason(decision):
    if decision.more:
        return all(map(is_packet_or_reason, decision.more)) and is_packet_or_reason(decision._replace(more=()))
    sends = bool(decision.packet and decision.endpoint and decision.vip)
    nothing = not (decision.packet or decision.endpoint or decision.vip)
    return sends if decision.reason is None else nothing and decision.reason in Reason


@pytest.fixture(scope="module")
def fuzzed(forwarder_of_this_round):
    """A forwarder for whom one pool has no healthy backend."""
    return forwarder(capacity=50, vip_map=vips(down=["10.3.1.2"]))


@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_are_decided_upon(fuzzed, raw):
    decision = fuzzed.decide(raw, 0.0)
    assert is_packet_or_reason(decision), f"should be sent whole, or not for one reason: {decision}"


@st.composite
def mutated(draw):
    """A frame that was sound until some of its bytes were replaced, and it was cut short, and its checksum mended."""
    starts = [tcp("S"), tcp("A", payload=b"hello"), udp(), ping(), fragments()[0], tcp(options=[RECORD_ROUTE])]
    raw = draw(st.one_of(st.sampled_from(starts), sent().map(lambda facts: facts.frame)))
    for at, value in draw(st.lists(st.tuples(st.integers(12, 60), st.integers(0, 255)), max_size=5)):
        raw = changed(raw, min(at, len(raw) - 1), value)
    if draw(st.booleans()) and len(raw) > 75:
        raw = with_sound_checksum(raw)
    return raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw


@given(raw=mutated(), now=st.floats(0, 1e9))
def test_mutated_frames_are_decided_upon(fuzzed, raw, now):
    decision = fuzzed.decide(raw, now)
    assert is_packet_or_reason(decision), f"should be sent whole, or not for one reason: {decision}"
    if decision.reason is None and not decision.more:
        total = int.from_bytes(raw[16:18], "big")
        assert decision.packet[24:] == raw[14 : 14 + total], "what is sent should hold the packet byte for byte"


def test_statistics_count_every_decision_once_and_leave_out_other_peoples_traffic():
    subject, statistics = forwarder(), Statistics()
    for number, (_, raw, _) in enumerate(FATES):
        statistics.count(subject.decide(raw, 60.0 * number))  # each as if it were alone
    expected = Counter(fate for _, _, fate in FATES if isinstance(fate, Reason))
    assert statistics.reasons == expected, f"the reasons should have been {expected}, but were {statistics.reasons}"
    sent_on = statistics.forwarded.total()
    assert sent_on + expected.total() == len(FATES), f"{sent_on} forwarded and {expected.total()} not: not all"
    assert set(statistics.drops()) == {reason.value for reason in expected} - {reason.value for reason in NO_DROPS}
    per_vip = Counter()
    for (vip, endpoint), packets in statistics.forwarded.items():
        per_vip[vip] += packets
        assert endpoint in PACKED | {pack_address("10.3.1.2")}, f"{endpoint.hex()} is no endpoint"
    assert per_vip == Counter(fate for _, _, fate in FATES if not isinstance(fate, Reason))


def test_a_flow_key_keeps_a_ping_apart_from_a_connection():
    assert flow(ping()) == Flow(pack_address(CLIENT), pack_address(VIP), 1, 0, 0), f"a ping's flow is {flow(ping())}"
