"""The packet parser, with Scapy as the oracle: it reads the fields that Scapy wrote, or says what is wrong."""

from __future__ import annotations

import random

import pytest
from frames import (
    CLIENT,
    RECORD_ROUTE,
    VIP,
    changed,
    fate,
    folded_sum,
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
from scapy.layers.inet import ICMP, IP, TCP, IPOption, defragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from maglev.errors import Discard, Reason
from maglev.flow import Flow, pack_address
from maglev.packets import flow_of, internet_sum, parse, parse_v4, split_v4

IP_AT, TCP_AT = 14, 34  # where the headers start in a frame whose IP header has no options


@given(sent())
def test_what_scapy_builds_is_read_to_the_same_fields(facts):
    packet = parse(facts.frame)
    dissected = Ether(facts.frame)[IP]
    read = (packet.source, packet.destination, packet.protocol, packet.fragment, packet.header_bytes, packet.data)
    built = (*facts.packed, facts.protocol, None, dissected.ihl * 4, facts.inner)
    assert read == built, f"should have been read as {built}, but was read as {read}"


@given(sent())
def test_a_flow_has_the_ports_that_scapy_put_there(facts):
    flow, opens = flow_of(parse(facts.frame))
    has_ports = facts.kind in ("tcp", "udp")
    expected = Flow(*facts.packed, facts.protocol, *((facts.sport, facts.dport) if has_ports else (0, 0)))
    assert flow == expected, f"the flow should have been {expected}, but was {flow}"
    is_opening = facts.kind == "tcp" and facts.flags & 0x12 == 0x02
    assert opens == is_opening, f"{facts.kind} with flags {facts.flags:#04x} should open a connection: {is_opening}"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("S", True), ("SEC", True), ("SA", False), ("A", False), ("PA", False), ("FA", False), ("R", False), ("", False)],
)
def test_only_a_syn_without_ack_opens_a_connection(flags, expected):
    opens = flow_of(parse(tcp(flags)))[1]
    assert opens == expected, f"TCP flags {flags or 'none'} should open a connection: {expected}, but: {opens}"


def test_ethernet_padding_is_no_part_of_the_packet():
    short = tcp()
    assert len(short) == 54, "a bare SYN fills 54 bytes, and Ethernet pads it to 60"
    packet = parse(short + b"\xaa" * 6)
    assert packet.data == short[14:], f"six bytes of padding should be cut off, but the packet is {packet.data.hex()}"


def test_ip_options_do_not_hide_the_ports():
    packet = parse(tcp("A", sport=1111, dport=2222, options=[RECORD_ROUTE]))
    flow, _ = flow_of(packet)
    assert packet.header_bytes == 32, f"a header with 12 bytes of options has 32, not {packet.header_bytes}"
    assert flow[3:] == (1111, 2222), f"the ports behind the options should have been 1111, 2222, but were {flow[3:]}"


# A segment of 20 bytes behind an IP header of 20 is a frame of 54 bytes; an ICMP or UDP header has 8.
MALFORMED = [
    ("no frame at all", b"", Reason.FRAME_TOO_SHORT),
    ("half an Ethernet header", tcp()[:13], Reason.FRAME_TOO_SHORT),
    ("an Ethernet header alone", tcp()[:14], Reason.FRAME_TOO_SHORT),
    ("half an IP header", tcp()[:33], Reason.FRAME_TOO_SHORT),
    ("ARP", bytes(Ether() / ARP()), Reason.NOT_IP),
    ("a VLAN tag", bytes(Ether(dst="02:00:00:00:00:02") / Dot1Q(vlan=5) / IP(src=CLIENT, dst=VIP)), Reason.NOT_IP),
    ("version 6 under IPv4's type", changed(tcp(), IP_AT, 0x65), Reason.BAD_IP_VERSION),
    ("version 0", changed(tcp(), IP_AT, 0x05), Reason.BAD_IP_VERSION),
    ("a header of 4 words", changed(tcp(), IP_AT, 0x44), Reason.BAD_IP_HEADER_LENGTH),
    ("a header of no words", changed(tcp(), IP_AT, 0x40), Reason.BAD_IP_HEADER_LENGTH),
    ("a total below the header", with_sound_checksum(changed(tcp(), IP_AT + 2, 0, 19)), Reason.BAD_IP_TOTAL_LENGTH),
    ("a total of 0", with_sound_checksum(changed(tcp(), IP_AT + 2, 0, 0)), Reason.BAD_IP_TOTAL_LENGTH),
    ("options beyond the total", changed(tcp(), IP_AT, 0x4F), Reason.BAD_IP_TOTAL_LENGTH),
    ("a frame cut short", tcp(payload=b"hello")[:-1], Reason.TRUNCATED),
    ("a total beyond the frame", with_sound_checksum(changed(tcp(), IP_AT + 2, 0, 41)), Reason.TRUNCATED),
    ("a wrong checksum", frame(TCP(), chksum=0x1234), Reason.BAD_IP_CHECKSUM),
    ("a checksum of 0", frame(TCP(), chksum=0), Reason.BAD_IP_CHECKSUM),
    ("TCP of 19 bytes", frame(bytes(TCP())[:19], proto=6), Reason.BAD_TRANSPORT_HEADER),
    ("TCP of no bytes", frame(proto=6), Reason.BAD_TRANSPORT_HEADER),
    ("TCP whose offset is 4 words", changed(tcp(), TCP_AT + 12, 0x40), Reason.BAD_TRANSPORT_HEADER),
    ("TCP whose offset passes the end", changed(tcp(), TCP_AT + 12, 0x60), Reason.BAD_TRANSPORT_HEADER),
    ("UDP of 7 bytes", frame(bytes(7), proto=17), Reason.BAD_TRANSPORT_HEADER),
    ("UDP that says 7 bytes", changed(udp(), TCP_AT + 4, 0, 7), Reason.BAD_TRANSPORT_HEADER),
    ("UDP that says more than there is", changed(udp(payload=b""), TCP_AT + 4, 0, 9), Reason.BAD_TRANSPORT_HEADER),
    ("ICMP of 7 bytes", frame(bytes(ICMP())[:7], proto=1), Reason.BAD_TRANSPORT_HEADER),
]


@pytest.mark.parametrize(("name", "raw", "reason"), MALFORMED, ids=[case[0] for case in MALFORMED])
def test_each_malformed_frame_has_its_reason(name, raw, reason):
    assert fate(raw) == reason, f"{name}: the reason should have been {reason}, but was {fate(raw)}"


SOUND = [
    ("TCP whose offset ends at the end", frame(TCP(options=[("NOP", None)] * 4))),
    ("UDP without a payload", udp(payload=b"")),
    ("UDP that says less than there is", changed(udp(payload=b"xyz"), TCP_AT + 4, 0, 8)),
    ("don't fragment", tcp(ip_flags="DF")),
    ("a wrong TCP checksum, the endpoint's business", frame(TCP(chksum=1))),
    ("a protocol without ports", frame(b"", proto=132)),
    ("a ping", ping()),
    ("the first fragment", fragments()[0]),
    ("a middle fragment", fragments()[1]),
    ("the last fragment", fragments()[-1]),
]


@pytest.mark.parametrize(("name", "raw"), SOUND, ids=[case[0] for case in SOUND])
def test_what_only_looks_odd_goes_on(name, raw):
    assert fate(raw) is None, f"{name} should go on, but was refused as {fate(raw)}"


def test_dont_fragment_and_the_reserved_bit_are_no_fragments():
    for flags in ("DF", "evil", "DF+evil"):
        packet = parse(frame(TCP(), flags=flags))
        assert packet.fragment is None, f"flags {flags} should not make a fragment"


def test_every_single_bit_flipped_in_a_header_is_noticed():
    """One's complement sums notice every single flipped bit; one in version or lengths is noticed before."""
    sound = tcp(options=[RECORD_ROUTE])
    for bit in range(32 * 8):
        at = IP_AT + bit // 8
        flipped = changed(sound, at, sound[at] ^ 1 << bit % 8)
        with pytest.raises(Discard) as caught:
            parse(flipped)
        if at not in (14, 16, 17):
            assert caught.value.reason == Reason.BAD_IP_CHECKSUM, f"bit {bit} of the IP header: {caught.value.reason}"


@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_parsed_or_discarded(raw):
    reason = fate(raw)
    assert reason is None or reason in Reason, "whatever arrives should be a packet or a reason"


@given(st.lists(st.integers(0, 0xFFFF), max_size=60))
def test_the_sum_is_that_of_rfc_1071(words):
    data = b"".join(word.to_bytes(2, "big") for word in words)
    naive = folded_sum(data)
    expected = 0 if naive == 0xFFFF else naive  # one's complement has two zeros, a residue only one
    assert internet_sum(data) == expected, f"{data.hex()} should sum to {expected:#x}, not {internet_sum(data):#x}"


def test_the_sum_of_rfc_1071s_own_example():
    """§3: 0001 + f203 + f4f5 + f6f7 = 2ddf0, and with the carry brought around ddf2."""
    found = internet_sum(bytes.fromhex("0001f203f4f5f6f7"))
    assert found == 0xDDF2, f"should have been 0xddf2, but was {found:#x}"


def test_random_headers_are_sound_exactly_when_scapy_would_say_so():
    generator = random.Random(3)
    for _ in range(200):
        raw = tcp(id=generator.randrange(65536), ttl=generator.randrange(1, 256), source=CLIENT)
        given_sum = generator.choice([raw[24:26], generator.randbytes(2)])
        raw = changed(raw, 24, *given_sum)
        dissected = Ether(raw)[IP]
        carried = dissected.chksum
        del dissected.chksum
        right = IP(bytes(dissected)).chksum
        expected = None if carried == right else Reason.BAD_IP_CHECKSUM
        assert fate(raw) == expected, f"{carried:#x} where Scapy says {right:#x}: should be {expected}, is {fate(raw)}"


def test_addresses_are_held_as_16_bytes():
    packet = parse(tcp())
    assert (packet.source, packet.destination) == (pack_address(CLIENT), pack_address(VIP))


# --- cutting ---------------------------------------------------------------------------------------------------------

ROUTER_ALERT = IPOption(b"\x94\x04\x00\x00")  # RFC 2113: to be copied into all fragments
OPTIONS = [
    ROUTER_ALERT,
    IPOption(b"\x07\x0b\x04" + bytes(8)),  # a record of the route, not to be copied
    IPOption(b"\x44\x0c\x05\x00" + bytes(8)),  # a timestamp, not to be copied
    IPOption(b"\x83\x07\x04\xc6\x33\x64\x07"),  # a loose source route, to be copied: 7 bytes
    IPOption(b"\x01"),  # no operation
    IPOption(b"\x9e\x02"),  # a type that nobody knows, to be copied
    IPOption(b"\x1e\x03\xff"),  # one that is not
]


@given(
    st.binary(min_size=1, max_size=3000), st.integers(0, 1500), st.sampled_from([[], [ROUTER_ALERT]]),
    st.integers(0, 0xFFFF), st.integers(0, 255),
)  # fmt: skip
def test_scapy_puts_together_again_what_was_cut(payload, more_bytes, options, identification, tos):
    whole = frame(Raw(payload), id=identification, tos=tos, options=options, proto=17, ttl=9)[14:]
    header_bytes = parse_v4(whole).header_bytes
    most_bytes = header_bytes + 8 + more_bytes
    parts = split_v4(whole, header_bytes, most_bytes)
    assert all(len(part) <= most_bytes for part in parts), f"no part should pass {most_bytes} bytes"
    for part in parts:
        cut = IP(part)
        kept = cut.id, cut.tos, cut.ttl, cut.proto, cut.src, cut.dst, cut.ihl * 4
        assert kept == (identification, tos, 9, 17, CLIENT, VIP, header_bytes), f"the header became {cut.summary()}"
        assert parse_v4(part).data == part, "length and checksum should be right"
    [again] = defragment([IP(part) for part in parts])
    assert bytes(again.payload) == whole[header_bytes:], "the payload should come out as it went in"
    assert len(parts) == 1 or len(parts) == -(-len(payload) // (more_bytes // 8 * 8 + 8)), "as few as can be"


def test_what_is_a_fragment_already_can_be_cut_again():
    whole = udp(payload=bytes(range(256)) * 4, id=5)[14:]
    first, *others = split_v4(whole, 20, 520)
    parts = [*split_v4(first, 20, 100), *others[:-1], *split_v4(others[-1], 20, 30)]
    [again] = defragment([IP(part) for part in parts])
    assert bytes(again.payload) == whole[20:], "Scapy should put together what was cut twice"
    assert sum(not IP(part).flags.MF for part in parts) == 1, "only the very last part should say so"


@given(st.lists(st.sampled_from(OPTIONS), max_size=7), st.integers(0, 64), st.binary(min_size=200, max_size=600))
def test_options_are_in_the_first_part_and_in_the_others_those_to_be_copied(options, more_bytes, payload):
    """RFC 791 §3.1; that each option has a bit which says so, is Scapy's reading."""
    while sum(len(bytes(option)) for option in options) > 40:
        options = options[1:]
    whole = frame(Raw(payload), options=options, proto=17, id=5)[14:]
    header_bytes = parse_v4(whole).header_bytes
    parts = split_v4(whole, header_bytes, header_bytes + 8 + more_bytes)
    assert parts[0][20:header_bytes] == whole[20:header_bytes], "the first part should have them all, as they came"
    expected = [bytes(option) for option in IP(whole).options if option.copy_flag]
    for part in map(IP, parts[1:]):
        found = [bytes(option) for option in part.options if bytes(option) != b"\0"]  # what fills up the word
        assert found == expected, f"of {options} the other parts should have {expected}, but have {found}"
        assert part.ihl * 4 == 20 + -(-len(b"".join(expected)) // 4) * 4, "and no more words than these take"
        assert parse_v4(bytes(part)).data == bytes(part), "length and checksum should be right"
    assert max(map(len, parts)) <= header_bytes + 8 + more_bytes
    [again] = defragment(list(map(IP, parts)))
    assert bytes(again.payload) == whole[header_bytes:]


MALFORMED_OPTIONS = [
    ("a length of 0", b"\x94\x04\x00\x00\x83\x00\x83\x04", b"\x94\x04\x00\x00"),
    ("a length of 1", b"\x83\x01\x94\x04\x00\x00\x83\x04", b""),
    ("a length beyond the header", b"\x94\x04\x00\x00\x83\x05\x00\x00", b"\x94\x04\x00\x00"),
    ("a type without length", b"\x01\x01\x01\x83", b""),
    ("something behind the end of options", b"\x00\x94\x04\x00\x94\x04\x00\x00", b""),
]


@pytest.mark.parametrize(("name", "options", "copied"), MALFORMED_OPTIONS, ids=[case[0] for case in MALFORMED_OPTIONS])
def test_options_that_cannot_be_read_stay_in_the_first_part(name, options, copied):
    whole = frame(options + bytes(100), ihl=5 + len(options) // 4, proto=17)[14:]
    first, *others = split_v4(whole, 20 + len(options), 64)
    assert first[20 : 20 + len(options)] == options
    assert {part[20 : (part[0] & 15) * 4] for part in others} == {copied}, name


def test_what_may_be_cut():
    may = {flags: parse(frame(TCP(), flags=flags)).may_be_fragmented for flags in ("", "DF", "evil", "MF")}
    assert may == {"": True, "DF": False, "evil": True, "MF": True}, may
