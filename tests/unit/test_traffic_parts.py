"""The pure parts of traffic: pace, sequence numbers, times, published sizes, captures, counters."""

import itertools
import math
import random
from ipaddress import ip_network

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.utils import PcapNgWriter, PcapWriter

from lab.connections import Row
from lab.errors import WrongUse
from lab.traffic.crafted import Answers, from_capture, from_scapy, to_vips
from lab.traffic.flow_sizes import CLASSES, DISTRIBUTIONS, flows, size_class
from lab.traffic.handle import check_number, shares
from lab.traffic.senders.pace import Pace
from lab.traffic.sequence import Sequence
from lab.traffic.times import Times

VIPS = [ip_network("192.0.2.1"), ip_network("2001:db8::1"), ip_network("192.0.2.64/28")]


# Pace


@pytest.mark.parametrize(("rate", "seconds"), [(1000, 2), (3, 2), (0.5, 4), (33333, 0.3)])
def test_at_a_steady_tick_all_are_sent_in_time(rate, seconds):
    pace, sent, tick = Pace(rate, seconds, 100.0), 0, 0
    while not pace.over(now := 100.0 + tick * 0.001):
        number = pace.due(now)
        assert number <= math.ceil(rate * 0.001) + 1
        sent += number
        assert abs(sent - rate * (now - 100.0)) <= rate * 0.001 + 1
        tick += 1
    assert sent == pace.total == round(rate * seconds)


def test_after_a_pause_nothing_is_caught_up_with():
    pace = Pace(1000, 10, 0.0)
    pace.due(0.0)
    assert pace.due(1.0) <= 11, "10 ms are 10 packets, and one is due"
    assert pace.asked(1.0) == 1001


def test_it_ends_with_the_time_whatever_was_sent():
    pace = Pace(1000, 1, 0.0)
    assert not pace.over(0.99)
    assert pace.over(1.02)


# Sequence numbers


def naive(answers, sent):
    """What is to be said of a list of (number, endpoint), by going through the list again for each."""
    seen, reordered, duplicates, changes, last = [], 0, 0, 0, ""
    for number, endpoint in answers:
        if number in seen:
            duplicates += 1
            continue
        reordered += any(other > number for other in seen)
        changes += last not in ("", endpoint)
        seen.append(number)
        last = endpoint
    return sent - len(seen), duplicates, reordered, changes


@pytest.mark.parametrize("seed", range(30))
def test_sequences_next_to_a_naive_count(seed):
    dice = random.Random(seed)
    numbers = [number for number in range(60) if dice.random() > 0.2 for _ in range(1 + (dice.random() < 0.1))]
    late = {at: dice.random() * 4 + index for index, at in enumerate(range(len(numbers)))}
    answers = [(numbers[at], dice.choice(["s1", "s1", "s2"])) for at in sorted(late, key=late.__getitem__)]
    flow = Sequence()
    assert [flow.send() for _ in range(60)] == list(range(60))
    for number, endpoint in answers:
        flow.answer(number, endpoint)
    assert (flow.lost, flow.duplicates, flow.reordered, flow.endpoint_changes) == naive(answers, 60)


# Times


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_within_a_percent_and_add_up(seed):
    dice = random.Random(seed)
    measured = [dice.lognormvariate(-7, 1.5) for _ in range(1000)]
    parts = [Times(), Times()]
    for index, value in enumerate(measured):
        parts[index % 2].add(value)
    times = Times.merged([part.document() for part in parts])
    ordered = sorted(measured)
    expected = {"50%": ordered[499], "90%": ordered[899], "99%": ordered[989], "max": ordered[999]}
    assert times.count == 1000
    for name, value in times.quantiles_ms().items():
        assert value == pytest.approx(expected[name] * 1e3, rel=0.011, abs=0.001)


def test_of_no_times_there_are_no_quantiles():
    assert Times().quantiles_ms() == {}


def test_a_clock_that_did_not_move_is_no_error():
    times = Times()
    times.add(0.0)
    assert times.quantiles_ms()["max"] == 0.0


# Published sizes


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("largest", [10**9, 10**6])
def test_generated_sizes_follow_the_table(name, largest):
    """Kolmogorov and Smirnov: of 20,000 sizes the distance is over 1.95 / sqrt(n) once in a thousand times."""
    distribution = DISTRIBUTIONS[name].cut(largest)
    sizes = sorted(flow.size for flow in itertools.islice(flows(distribution, 1e12, 1e9, seed=7), 20_000))
    distance = max(
        max(
            abs((index + 1) / len(sizes) - distribution.share(size)), abs(index / len(sizes) - distribution.share(size))
        )
        for index, size in enumerate(sizes)
        if size > 180  # below, whole bytes are coarse
    )
    assert distance < 1.95 / math.sqrt(len(sizes))
    assert 1 <= sizes[0] <= sizes[-1] <= min(largest, distribution.sizes[-1])


def test_means_and_shares_are_those_that_were_published():
    web, mining = DISTRIBUTIONS["web_search"], DISTRIBUTIONS["data_mining"]
    assert web.mean() == pytest.approx(1138 * 1460, rel=0.05), "pFabric's simulations: 1,138 packets of 1,460 bytes"
    assert web.share(80_000) == pytest.approx(0.53)
    assert mining.share(10_000) == pytest.approx(0.8), "VL2: four of five flows are smaller than 10 kB"
    assert mining.share(10**8) == pytest.approx(0.98)


@pytest.mark.parametrize(
    ("name", "packets"),
    [
        ("web_search", {19: 0.3, 33: 0.4, 53: 0.53, 133: 0.6, 667: 0.7, 1333: 0.8, 3333: 0.9, 6667: 0.97, 20000: 1.0}),
        ("data_mining", {7: 0.8, 267: 0.9, 2107: 0.95, 666667: 1.0}),
    ],
)
def test_sizes_are_those_of_another_publication_in_packets_of_1500_bytes(name, packets):
    for number, share in packets.items():
        low, high = (DISTRIBUTIONS[name].share((number + rounded) * 1500) for rounded in (-1, 1))  # whole packets
        assert low <= share <= high, number


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_tables_grow_and_sizes_and_shares_are_each_other_s_inverse(name):
    distribution = DISTRIBUTIONS[name]
    assert list(distribution.shares) == sorted(set(distribution.shares))
    assert list(distribution.sizes) == sorted(set(distribution.sizes))
    for share in (0.05, 0.33, 0.5, 0.77, 0.96, 1.0):
        assert distribution.share(distribution.size(share)) == pytest.approx(share, abs=0.01)


def test_flows_come_at_random_and_make_the_load():
    distribution, seconds, load = DISTRIBUTIONS["web_search"], 5000.0, 50e6
    made = list(flows(distribution, load, seconds, seed=3))
    gaps = [later.at_s - flow.at_s for flow, later in itertools.pairwise(made)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation == pytest.approx(mean, rel=0.05), "of exponential gaps the deviation is the mean"
    assert sum(flow.size for flow in made) * 8 / seconds == pytest.approx(load, rel=0.05)
    assert made == list(flows(distribution, load, seconds, seed=3))
    assert made != list(flows(distribution, load, seconds, seed=4))


def test_classes():
    assert [size_class(size) for size in (1, 100_000, 100_001, 10**7, 10**7 + 1)] == [
        "mice", "mice", "middling", "middling", "elephants",
    ]  # fmt: skip
    assert list(CLASSES) == ["mice", "middling", "elephants"]


# Captures and templates


def write_capture(path, packets, ng=False):
    writer = PcapNgWriter(str(path)) if ng else PcapWriter(str(path))
    for at_s, packet in packets:
        packet.time = at_s
        writer.write(packet)
    writer.close()


@pytest.mark.parametrize("ng", [False, True])
def test_a_capture_s_packets_to_vips_with_their_times(tmp_path, ng):
    first = IP(src="1.1.1.1", dst="192.0.2.1") / TCP(dport=80)
    tagged = IPv6(src="2001:db8:9::1", dst="2001:db8::1") / UDP(dport=7)
    other = IP(src="192.0.2.1", dst="1.1.1.1") / TCP(sport=80)
    frames = [(10.0, Ether() / ARP()), (10.5, Ether() / first), (10.6, Ether() / other)]
    frames += [(11.25, Ether() / Dot1Q(vlan=3) / tagged)]
    write_capture(tmp_path / "a.pcap", frames, ng)
    timed = from_capture(tmp_path / "a.pcap", VIPS, {})
    assert [packet for _, packet in timed] == [bytes(first), bytes(tagged)]
    assert [at_s for at_s, _ in timed] == pytest.approx([0.0, 0.75], abs=1e-5)
    moved = from_capture(tmp_path / "a.pcap", VIPS, {4: "10.0.1.2"})
    assert IP(moved[0][1]).src == "10.0.1.2"
    assert moved[1] == timed[1], "it is of another family, and stays as it was"


def test_captures_without_link_layer(tmp_path):
    packet = IP(src="1.1.1.1", dst="192.0.2.70") / UDP(dport=7)
    write_capture(tmp_path / "raw.pcap", [(1.0, packet)])
    assert from_capture(tmp_path / "raw.pcap", VIPS, {}) == [(0.0, bytes(packet))]


def test_captures_that_serve_for_nothing_are_refused(tmp_path):
    write_capture(tmp_path / "other.pcap", [(1.0, Ether() / IP(dst="1.1.1.1") / UDP())])
    with pytest.raises(WrongUse, match="no packet to a VIP"):
        from_capture(tmp_path / "other.pcap", VIPS, {})
    (tmp_path / "text.pcap").write_text("hello, this is no capture at all")
    with pytest.raises(WrongUse, match="cannot be read"):
        from_capture(tmp_path / "text.pcap", VIPS, {})
    with pytest.raises(WrongUse, match="cannot be read"):
        from_capture(tmp_path / "none.pcap", VIPS, {})


def test_templates():
    packet = IP(dst="192.0.2.1") / UDP(dport=7)
    assert from_scapy(packet) == from_scapy([Ether() / packet]) == from_scapy(bytes(packet)) == [bytes(packet)]
    for wrong in ("text", 5, None, [None]):
        with pytest.raises(WrongUse, match="packets are Scapy's or bytes"):
            from_scapy(wrong)


def test_packets_go_to_vips_and_nowhere_else():
    good = bytes(IP(dst="192.0.2.1") / UDP())
    assert to_vips([good, good, bytes(IP(dst="192.0.2.79"))], VIPS) == ["192.0.2.1", "192.0.2.79"]
    with pytest.raises(WrongUse, match=r"packet 1 goes to 192\.0\.2\.2; traffic goes to VIPs only"):
        to_vips([good, bytes(IP(dst="192.0.2.2"))], VIPS)
    with pytest.raises(WrongUse, match="packet 0: no IP packet"):
        to_vips([b"\x00"], VIPS)


def test_counters_of_answers():
    assert "ip saddr 192.0.2.1 counter name answers" in Answers(("192.0.2.1",)).table("x")
    rule = "ip6 saddr 2001:db8::1 udp sport 7 udp dport 20000-20015 counter name answers drop"
    assert rule in Answers(("2001:db8::1",), 17, 7, (20000, 20015), hidden=True).table("x")


# Small things


def test_shares_add_up():
    assert shares(10, 3) == [4, 3, 3]
    assert sum(shares(5001, 7)) == 5001


@pytest.mark.parametrize("number", [0, 11, "3", None, True, float("nan"), float("inf")])
def test_numbers_out_of_bounds_are_refused(number):
    with pytest.raises(WrongUse, match=r"rate=.* is not allowed; allowed: a number from 1 to 10"):
        check_number("rate", number, 1, 10)


def test_whole_numbers():
    check_number("flows", 3, 1, 10, whole=True)
    with pytest.raises(WrongUse, match="a whole number"):
        check_number("flows", 3.0, 1, 10, whole=True)


def test_a_connection_is_as_silent_as_its_last_answer_is_old():
    row = Row(3, "alive", "s1", 7, 0.5, 100.0, 99.9, 98.0)
    assert row.seen("c1", 100.2, 10.0).fate == "alive"
    assert row.seen("c1", 100.2, 10.0).longest_silence_ms == 500
    stalled = row.seen("c1", 111.0, 10.0)
    assert (stalled.fate, stalled.longest_silence_ms) == ("stalled", 11000)
    assert (stalled.opened_at, stalled.answered_at) == (98.0, 100.0)
    assert row._replace(fate="closed").seen("c1", 111.0, 10.0).fate == "closed"
