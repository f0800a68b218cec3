"""Fragments through the forwarder (Maglev §4.3): who owns a packet, what follows its first one, what is refused."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from forwarders import (
    ENDPOINTS,
    PEERS,
    PEERS6,
    a_map,
    all_decided,
    another,
    as_frame,
    assert_served_by,
    by_hash,
    decided,
    inner,
    outer,
    pin,
    reference,
    text,
)
from frames import CLIENT, CLIENT6, MAGLEV, MAGLEV6, VIP, fragments, fragments6, frame, frame6, tcp, udp, udp6
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.layers.l2 import GRE
from scapy.packet import Raw

from maglev.errors import NO_DROPS, Reason
from maglev.flow import pack_address
from maglev.forwarding import Statistics
from maglev.fragments import Limits

ALONE, CLUSTER = a_map(), a_map(maglevs=3)
# how a packet is cut, the VIP's name, its pool, and a whole packet of the same flow
VERSIONS = [(fragments, "dns", "web", udp), (fragments6, "dns6", "web6", udp6)]
version = pytest.mark.parametrize(("cut", "vip", "pool", "whole"), VERSIONS, ids=["IPv4", "IPv6"])


def delivered(decisions):
    return [inner(each) for each in decisions if each.vip]


@version
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_fragments_follow_the_first_one_in_whatever_order_they_come(new_forwarder, order, cut, vip, pool, whole):
    pieces = cut()
    arriving = [pieces[place] for place in order]
    decisions = all_decided(new_forwarder(ALONE), arriving)
    early = order.index(0)
    assert [each.reason for each in decisions[:early]] == [Reason.HELD] * early, list(map(decided, decisions))
    endpoint = by_hash(whole(), ALONE, pool)
    assert [decided(each) for each in decisions[early:]] == [f"{endpoint} for {vip}"] * 3
    expected = [pieces[0], *arriving[:early], *(raw for raw in arriving[early:] if raw != pieces[0])]
    found = delivered(decisions)
    assert found == [raw[14:] for raw in expected], "the first should go out, then those that waited, then the others"


@version
def test_fragments_follow_the_backend_that_the_connection_table_names(new_forwarder, cut, vip, pool, whole):
    """Not the one that the hash would: the endpoint must get the whole of a packet, and all of a flow."""
    subject = new_forwarder(ALONE)
    kept = another(by_hash(whole(), ALONE, pool))
    pin(subject, whole(), kept)
    decisions = all_decided(subject, cut()[::-1])
    assert [decided(each) for each in decisions[2:]] == [f"{kept} for {vip}"] * 3, list(map(decided, decisions))


def test_a_first_fragment_is_recorded_like_any_packet_of_its_flow(new_forwarder):
    subject = new_forwarder(ALONE)
    before = by_hash(udp(), ALONE)
    subject.decide(fragments()[0], 0.0)
    subject.vips = a_map(weights={before: 0})
    found = decided(subject.decide(udp(), 1.0))
    assert found == f"{before} for dns", f"a whole packet of the same flow should follow it, but: {found}"


@version
def test_without_its_first_fragment_nothing_of_a_packet_is_sent(new_forwarder, cut, vip, pool, whole):
    subject = new_forwarder(ALONE)
    decisions = all_decided(subject, cut()[1:], 10.0)
    assert [each.reason for each in decisions] == [Reason.HELD] * 2
    assert (subject.fragments.expired(11.9), subject.fragments.expired(12.0)) == (0, 2), "both wait two seconds in vain"
    late = all_decided(subject, cut()[:1], 12.0)
    assert len(delivered(late)) == 1, "what has expired should not be released"


@version
@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_fragment_holds_up_no_other(new_forwarder, missing, cut, vip, pool, whole):
    arriving = [raw for place, raw in enumerate(cut()) if place != missing]
    assert delivered(all_decided(new_forwarder(ALONE), arriving)) == [raw[14:] for raw in arriving]


def test_overlapping_fragments_go_the_way_of_the_first(new_forwarder):
    """Whether they may overlap is for the endpoint to say (RFC 5722), which gets them all."""
    subject = new_forwarder(ALONE)
    first = fragments()[0]
    over_ports = frame(bytes(64), id=77, frag=0, flags="MF", proto=17, ttl=3)
    over_data = frame(bytes(64), id=77, frag=2, flags="MF", proto=17)
    decisions = all_decided(subject, [first, over_data])
    assert {decided(each) for each in decisions} == {f"{by_hash(udp(), ALONE)} for dns"}
    assert subject.decide(over_ports, 0.0).reason == Reason.BAD_TRANSPORT_HEADER, "a UDP header of zeros is none"


def test_a_tiny_first_fragment_shows_too_little(new_forwarder):
    """RFC 1858 §3.1: eight bytes of TCP show the ports and hide the flags."""
    subject = new_forwarder(ALONE)
    first, second, *_ = (IP(src=CLIENT, dst=VIP, id=9) / TCP(dport=80) / Raw(bytes(16))).fragment(fragsize=8)
    assert subject.decide(as_frame(bytes(first)), 0.0).reason == Reason.BAD_TRANSPORT_HEADER
    assert subject.decide(as_frame(bytes(second)), 0.0).reason == Reason.HELD


@version
def test_a_packet_to_a_port_without_vip_takes_its_fragments_with_it(new_forwarder, cut, vip, pool, whole):
    subject = new_forwarder(ALONE)
    decisions = all_decided(subject, cut(dport=9)[::-1])
    assert [each.reason for each in decisions] == [Reason.HELD, Reason.HELD, Reason.NO_VIP_PORT]
    assert subject.fragments.expired(2.0) == 2


def test_fragments_of_two_packets_do_not_follow_each_other(new_forwarder):
    subject = new_forwarder(ALONE)
    mine, others = fragments(), [fragments(id=78), fragments(source="203.0.113.8"), fragments6()]
    all_decided(subject, mine[:1])
    for pieces in others:
        assert subject.decide(pieces[1], 0.0).reason == Reason.HELD
    assert delivered(all_decided(subject, mine[1:])) == [raw[14:] for raw in mine[1:]]


def test_a_packet_without_healthy_backend_is_dropped_with_all_its_fragments(new_forwarder):
    decisions = all_decided(new_forwarder(a_map(down=ENDPOINTS)), fragments())
    assert [each.reason for each in decisions] == [Reason.NO_BACKEND, Reason.HELD, Reason.HELD]


@pytest.mark.parametrize(
    ("limits", "fates"),
    [
        (Limits(held_fragments=1), [Reason.HELD, Reason.FRAGMENT_TOO_EARLY]),
        (Limits(held_fragments=0), [Reason.FRAGMENT_TOO_EARLY] * 2),
        (Limits(held_bytes=200), [Reason.HELD, Reason.FRAGMENT_TOO_EARLY]),
    ],
    ids=["one fragment", "none", "200 bytes"],
)
def test_what_there_is_no_room_for_comes_too_early(new_forwarder, limits, fates):
    subject = new_forwarder(ALONE, fragment_limits=limits)
    last, middle, first = fragments()[::-1]
    decisions = all_decided(subject, [last, middle])
    assert [each.reason for each in decisions] == fates, "the last has 132 bytes, and one in the middle 220"
    released = delivered(all_decided(subject, [first]))
    assert released == [first[14:], *([last[14:]] if Reason.HELD in fates else [])]
    assert delivered(all_decided(subject, [middle])) == [middle[14:]], "after the first there is no early"


# --- the cluster -----------------------------------------------------------------------------------------------------


def of_client(number, cut=fragments):
    return cut(source=f"203.0.113.{number}" if cut is fragments else f"2001:db8:c::{number}")


def owner_of(pieces, vips=CLUSTER, maglev=MAGLEV):
    """Which Maglev a forwarder takes for the owner of a packet: where it sends its last fragment, or itself."""
    decision = reference(vips, own=[maglev, MAGLEV6]).decide(pieces[-1], 0.0)
    return maglev if decision.reason == Reason.HELD else text(decision.endpoint)


def owned_by(maglev, cut=fragments):
    """The fragments of a packet that a Maglev owns."""
    return next(pieces for number in range(1, 100) if owner_of(pieces := of_client(number, cut)) == maglev)


def test_maglevs_agree_on_the_owner_of_each_packet_and_share_them_out():
    owners = Counter()
    for number in range(1, 250):
        told = {owner_of(of_client(number), maglev=maglev) for maglev in PEERS}
        assert len(told) == 1, f"client {number}: the Maglevs should name one owner, but name {told}"
        owners += Counter(told)
    assert set(owners) == set(PEERS), f"all three should own some: {owners}"
    assert min(owners.values()) > 55, f"each should own a third of 249, some 83 +- 7: {owners}"


def test_an_owner_that_is_dead_is_replaced_and_the_living_keep_theirs():
    without = a_map(maglevs=3, down=[PEERS[1]])
    moved = [(owner_of(of_client(n)), owner_of(of_client(n), without)) for n in range(1, 250)]
    assert all(after != PEERS[1] for _, after in moved), "a dead Maglev should own nothing"
    stayed = sum(before == after for before, after in moved if before != PEERS[1])
    living = sum(before != PEERS[1] for before, _ in moved)
    assert stayed > 0.9 * living, f"of {living} packets of the others 90 % should have stayed, but {stayed} did"


@pytest.mark.parametrize("cut", [fragments, fragments6], ids=["IPv4", "IPv6"])
def test_a_packet_owned_elsewhere_is_sent_on_whole_and_nothing_is_kept(new_forwarder, cut):
    subject = new_forwarder(CLUSTER)
    pieces = owned_by(PEERS[1], cut)
    decisions = all_decided(subject, pieces[::-1])
    assert [decided(each) for each in decisions] == [f"to the Maglev {PEERS[1]}"] * 3
    for raw, each in zip(pieces[::-1], decisions, strict=True):
        sent = outer(each)
        assert (sent.src, sent.dst, sent[GRE].recursion_control, inner(each)) == (MAGLEV, PEERS[1], 1, raw[14:])
    assert (len(subject.fragments), len(subject.connections)) == (0, 0)


@pytest.mark.parametrize(("cut", "pool"), [(fragments, "web"), (fragments6, "web6")], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("taker", "senders_view"),
    [(PEERS[1], CLUSTER), (PEERS[2], a_map(maglevs=3, down=[PEERS[1]]))],
    ids=["the owner", "another, who takes the dead one for the owner still"],
)
def test_what_was_sent_on_is_never_sent_on_again(new_forwarder, taker, senders_view, cut, pool):
    pieces = next(
        pieces
        for number in range(1, 200)
        if owner_of(pieces := of_client(number, cut)) == PEERS[1] and owner_of(pieces, senders_view) == taker
    )
    sent_on = [as_frame(each.packet) for each in all_decided(new_forwarder(senders_view), pieces[::-1])]
    decisions = all_decided(new_forwarder(CLUSTER, own=[taker, "fd00:1::3"]), sent_on)
    assert [each.reason for each in decisions] == [Reason.HELD, Reason.HELD, None, None, None]
    assert {text(each.endpoint) for each in decisions[2:]} == {by_hash(pieces[0], CLUSTER, pool)}
    assert delivered(decisions) == [pieces[0][14:], pieces[2][14:], pieces[1][14:]]


def test_fragments_by_both_ways_meet_at_the_owner(new_forwarder):
    """The router gave some to the owner, some to another Maglev: a change of its routes parts a packet."""
    pieces = owned_by(PEERS[1])
    detour = as_frame(new_forwarder(CLUSTER).decide(pieces[2], 0.0).packet)
    decisions = all_decided(new_forwarder(CLUSTER, own=[PEERS[1]]), [detour, pieces[0], pieces[1]])
    assert delivered(decisions) == [pieces[0][14:], pieces[2][14:], pieces[1][14:]]


def sent_on(payload, source=PEERS[1], recursion=1, kind=0x0800, **gre):
    return frame(GRE(proto=kind, recursion_control=recursion, **gre), Raw(payload), source=source, destination=MAGLEV)


def sent_on6(payload, source=PEERS6[1], kind=0x0800):
    return frame6(GRE(proto=kind, recursion_control=1), Raw(payload), source=source, destination=MAGLEV6)


PIECE, PIECE6 = fragments()[0][14:], fragments6()[0][14:]
REDIRECTED = [
    ("from a Maglev", sent_on(PIECE), "dns"),
    ("IPv6 from a Maglev", sent_on(PIECE6, kind=0x86DD), "dns6"),
    ("from this Maglev's own address", sent_on(PIECE, source=MAGLEV), "dns"),
    ("from the second address of a Maglev", sent_on6(PIECE), "dns"),
    ("IPv6 from the second address of a Maglev", sent_on6(PIECE6, kind=0x86DD), "dns6"),
    ("from a stranger", sent_on(PIECE, source="10.9.9.9"), Reason.NOT_FROM_MAGLEV),
    ("from a client", sent_on(PIECE, source=CLIENT), Reason.NOT_FROM_MAGLEV),
    ("from an endpoint", sent_on(PIECE, source=ENDPOINTS[0]), Reason.NOT_FROM_MAGLEV),
    ("from a stranger over IPv6", sent_on6(PIECE, source=CLIENT6), Reason.NOT_FROM_MAGLEV),
    ("without recursion control", sent_on(PIECE, recursion=0), Reason.BAD_GRE_HEADER),
    ("sent on twice", sent_on(PIECE, recursion=2), Reason.BAD_GRE_HEADER),
    ("with a key", sent_on(PIECE, key_present=1, key=5), Reason.BAD_GRE_HEADER),
    ("with Ethernet in it", sent_on(PIECE, kind=0x6558), Reason.BAD_GRE_HEADER),
    ("with a whole packet in it", sent_on(udp()[14:]), Reason.BAD_GRE_HEADER),
    ("with half a packet in it", sent_on(PIECE[:-1]), Reason.TRUNCATED),
    ("with nothing in it", sent_on(b""), Reason.FRAME_TOO_SHORT),
    ("for an address that is no VIP", sent_on(fragments(destination="192.0.2.99")[0][14:]), Reason.NOT_VIP),
    ("for a port without VIP", sent_on(fragments(dport=9)[0][14:]), Reason.NO_VIP_PORT),
    ("to a VIP, not to this Maglev", frame(GRE(recursion_control=1), Raw(PIECE), source=PEERS[1]), Reason.NO_VIP_PORT),
    ("to another Maglev", frame(GRE(recursion_control=1), Raw(PIECE), destination=PEERS[1]), Reason.NOT_VIP),
    ("cut in the GRE header",
     frame(b"\x01\x00\x08", proto=47, source=PEERS[1], destination=MAGLEV), Reason.BAD_GRE_HEADER),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "expected"), REDIRECTED, ids=[case[0] for case in REDIRECTED])
def test_only_fragments_are_taken_and_only_from_maglevs(new_forwarder, name, raw, expected):
    assert_served_by(new_forwarder(CLUSTER), name, raw, expected)


def test_what_a_dead_maglev_had_sent_on_is_taken():
    """It is known, if not alive: the fragment is worth no less."""
    decision = reference(a_map(maglevs=3, down=[PEERS[1]])).decide(sent_on(PIECE), 0.0)
    assert decision.vip == "dns", decided(decision)


def test_statistics_count_what_was_sent_on_by_maglev_and_what_is_held_as_no_drop(new_forwarder):
    subject, statistics = new_forwarder(CLUSTER), Statistics()
    for maglev in PEERS:
        for decision in all_decided(subject, owned_by(maglev)[1:]):
            statistics.count(decision)
    assert statistics.redirected == {pack_address(PEERS[1]): 2, pack_address(PEERS[2]): 2}
    assert (statistics.forwarded, statistics.reasons) == ({}, {Reason.HELD: 2})
    assert Reason.HELD in NO_DROPS
    total = Statistics()
    total.add(statistics, subject.fragments.expired(2.0))
    assert total.drops() == {"fragment_expired": 2}, total.drops()


def test_whole_packets_are_never_sent_on(new_forwarder):
    subject = new_forwarder(CLUSTER)
    for number in range(1, 60):
        for raw in (tcp(source=f"203.0.113.{number}"), udp(source=f"203.0.113.{number}")):
            assert subject.decide(raw, 0.0).vip, "only fragments have an owner"


def test_a_fragment_that_is_the_whole_packet_is_none(new_forwarder):
    """RFC 6946: it is decided by its ports at once, wherever it has come to."""
    raw = frame6(IPv6ExtHdrFragment(nh=17, id=5), UDP(sport=40000, dport=53), Raw(b"question"), nh=44)
    decision = new_forwarder(CLUSTER).decide(raw, 0.0)
    assert decided(decision) == f"{by_hash(udp6(), CLUSTER, 'web6')} for dns6"
