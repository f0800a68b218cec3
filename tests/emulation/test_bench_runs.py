"""The bench for real: a short run, what it leaves behind, and that its yardsticks do what they are measured at."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time

import pytest
from commands import MAGLAB, Machine, lab_of, left_of, maglab, networks_of, started, wait_gone
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw
from wires import ETH_P_ALL, PACKET_OUTGOING, inside

from lab.bench import needs
from lab.bench.programs import SOURCES, compiled
from lab.bench.traffic import Traffic, generating
from lab.bench.wiring import MAGLEV, MAGLEV_MAC, ROUTER_MAC, VIP, wired
from lab.bench.yardsticks import Bench, all_yardsticks
from lab.site import Site
from lab.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a bench makes network namespaces, which only root may do")

INTERRUPTED = 130  # 128 + SIGINT, as shells say it
ESP = 50  # RFC 4303: a protocol without ports
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
CLIENT, PORT = "198.18.0.7", 80
OTHERS_S = 0.2  # how long to watch for packets that must not come
WHY_NO_C, WHY_NO_BPF = needs.missing(needs.C), needs.missing(needs.BPF)
needs_bpf = pytest.mark.skipif(bool(WHY_NO_BPF), reason=WHY_NO_BPF)
BALANCING = [yardstick for yardstick in all_yardsticks() if yardstick.returns == "balanced"]


@pytest.fixture
def site():
    site = Site.create("bench")
    yield site
    site.clean()


# The command


@needs_bpf
def test_a_short_run_has_its_rows_and_leaves_nothing_behind(tmp_path):
    before, file = Machine.now(), tmp_path / "result.json"
    options = ["--engines", "socket,kernel-forward", "--seconds", "0.3", "--runs", "1", "--json", str(file)]
    done = maglab("bench", *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    assert [row["engine"] for row in document["rows"]] == ["socket", "kernel-forward"]
    assert document["left_out"] == {}
    assert document["machine"].keys() >= {"kernel", "cpu", "cores"}
    for row in document["rows"]:
        assert row["runs"] == [row["pps"]]
        assert row["pps"] > 1000, f"a forwarder that hardly forwards: {row}"
        assert 0 <= row["loss"] <= 1
        assert row["ns_per_packet"] > 10
        assert 0.1 < row["cpu"]["forwarder"] <= 1, f"the work was not done on the forwarder's core: {row}"
        assert row["at_80_percent"]["offered_pps"] > 0
    assert "socket" in done.stdout
    assert Machine.now() == before


def test_a_lab_is_timed_and_leaves_nothing_behind(tmp_path):
    before, file = Machine.now(), tmp_path / "result.json"
    done = maglab("bench", "lab", "--runs", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    seconds = {row["event"]: row["s"] for row in json.loads(file.read_text())["rows"]}
    assert list(seconds) == ["up", "first curl", "gone", "first of 6 forwards", "last of 6 forwards"]
    assert 0 < seconds["first of 6 forwards"] <= seconds["last of 6 forwards"], seconds
    assert Machine.now() == before


@needs_bpf
def test_ctrl_c_takes_everything_away():
    before = Machine.now()
    with started([*MAGLAB, "bench", "--engines", "socket,scapy", "--runs", "9"]) as bench:
        running = lab_of(bench)
        wait_until(lambda: "" if len(networks_of(running)) >= 2 else "no namespaces", 20.0, "a measurement")
        networks = networks_of(running)
        bench.send_signal(signal.SIGINT)
        _, complaint = bench.communicate(timeout=20)
    assert bench.returncode == INTERRUPTED
    assert complaint == "maglab: stopped, and everything taken away\n"
    wait_gone(running, networks, before)


@needs_bpf
def test_a_bench_that_is_killed_takes_its_processes_and_namespaces_with_it():
    with started([*MAGLAB, "bench", "--engines", "socket", "--runs", "9"]) as bench:
        running = lab_of(bench)
        wait_until(lambda: "" if len(networks_of(running)) >= 2 else "no namespaces", 20.0, "a measurement")
        networks = networks_of(running)
        bench.kill()
        bench.wait()
    directory = f"/run/maglab/{running}"
    wait_until(lambda: str(rest) if (rest := set(left_of(running, networks)) - {directory}) else "", 5.0, "its end")
    assert f"{running}: ended 0 processes" in maglab("clean").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engines", "warp"], "--engines warp"),
        (["frob"], "frob"),
        (["--runs", "0"], "--runs 0"),
        (["--chart", "chart.doc"], "--chart chart.doc"),
        (["--json", "/nowhere/at/all.json"], "/nowhere/at/all.json"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, says):
    done = maglab("bench", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


# The yardsticks


@pytest.mark.parametrize("source", sorted(path.name for path in SOURCES.glob("*.c")))
def test_a_program_compiles_without_a_warning(source):
    if why := WHY_NO_C if source in ("ring.c", "latency.c") else WHY_NO_BPF:
        pytest.skip(why)
    assert compiled(source, "-Werror").stat().st_size > 0


def sound_packets(transports=(TCP, UDP)):
    """IP packets to balance, of all lengths; the shortest come in padded frames."""
    to_vip = [IP(src=CLIENT, dst=VIP, tos=number) for number in range(20)]
    return [
        bytes(ip / transport(sport=1024 + ip.tos, dport=PORT) / Raw(b"x" * 60 * ip.tos))
        for ip in to_vip
        for transport in transports
    ]


def other_packets(checks_headers):
    """What is not to be balanced: another protocol, another port, another address, a fragment, a broken header."""
    to_vip = IP(src=CLIENT, dst=VIP)
    broken = bytearray(bytes(to_vip / UDP(sport=1, dport=PORT)))
    broken[10] ^= 0xFF
    return [
        bytes(IP(src=CLIENT, dst=VIP, proto=ESP) / Raw(bytes(40))),
        bytes(to_vip / TCP(sport=1, dport=PORT + 1)),
        bytes(IP(src=CLIENT, dst="192.0.2.99") / TCP(sport=1, dport=PORT)),
        bytes(IP(src=CLIENT, dst=VIP, frag=10) / UDP(sport=1, dport=PORT)),
        *([bytes(broken)] if checks_headers else []),
    ]


def exchange(wire, packets, expected, patience_s=5.0):
    """Puts IP packets on the wire in frames of at least 60 bytes; returns all frames that come back, in their order."""
    with inside(wire.router):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with end:
        end.bind((wire.router_end, ETH_P_ALL))
        for packet in packets:
            end.send(bytes(Ether(src=ROUTER_MAC, dst=MAGLEV_MAC, type=0x0800) / Raw(packet)).ljust(60, b"\0"))
        return list(frames(end, expected, patience_s))


def frames(end, expected, patience_s):
    """Yields frames that arrive: patiently as many as are expected, and then whatever else comes soon."""
    deadline = time.monotonic() + patience_s
    while select.select([end], [], [], max(0.0, deadline - time.monotonic()))[0]:
        frame, (_, _, direction, *_) = end.recvfrom(65535)
        if direction != PACKET_OUTGOING:
            yield frame
            expected -= 1
            if expected == 0:
                deadline = time.monotonic() + OTHERS_S


def balanced(packet, backend):
    """The frame that a Maglev has to make of a packet, as Scapy makes it."""
    outer = IP(src=MAGLEV, dst=backend, tos=packet[1], id=0, flags="DF", ttl=64)
    return bytes(Ether(src=MAGLEV_MAC, dst=ROUTER_MAC) / outer / GRE(proto=0x0800) / Raw(packet))


@pytest.mark.parametrize("yardstick", BALANCING, ids=lambda yardstick: yardstick.name)
def test_a_yardstick_balances_what_it_should_and_nothing_else_byte_by_byte(yardstick, site):
    if why := yardstick.missing():
        pytest.skip(why)
    # The forwarder is configured for TCP alone.
    sound = sound_packets((TCP,) if yardstick.engine in ("xdp", "ring", "socket") else (TCP, UDP))
    others = other_packets(checks_headers=yardstick.engine != "scapy")
    with wired(site) as wire:
        yardstick.start(Bench(site), wire)
        # Next hops may not be known at the very beginning.
        first_answer = lambda: "" if exchange(wire, sound[:1], 1, patience_s=0.2) else "nothing came back"  # noqa: E731
        wait_until(first_answer, 10.0, "the first packet's return")
        first, second = (exchange(wire, sound + others, len(sound)) for _ in range(2))
    backends = [IP(frame[14:]).dst for frame in first]
    assert first == [balanced(packet, backend) for packet, backend in zip(sound, backends, strict=True)]
    assert second == first, "a flow has changed its backend"
    assert len(set(backends)) > 5
    assert all(backend.startswith("10.2.0.") for backend in backends)


# The generator


def sent_packets(site, traffic, packets):
    """So many packets as they arrive on the Maglev's end of the wire, and how many the generator says it sent."""
    with wired(site) as wire, generating(wire, traffic) as generator:
        with inside(wire.maglev):
            end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        with end:
            end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
            generator.flood(60.0, rate=1000)
            seen = [Ether(frame) for frame in frames(end, packets, patience_s=30.0)]
            return seen[:packets], generator.halt().sent


VARIED = Traffic(flows=499, udp=True, length=512, vips=7)


@needs_bpf
@pytest.mark.parametrize("traffic", [Traffic(flows=500, syn_every=4), VARIED], ids=("tcp", "udp"))
def test_the_generator_sends_sound_packets_of_every_flow(traffic, site):
    packets, sent = sent_packets(site, traffic, traffic.flows)
    assert sent >= len(packets)
    assert {len(packet) for packet in packets} == {traffic.length}
    assert len({(packet[IP].src, packet[IP].payload.sport) for packet in packets}) == traffic.flows
    assert len({packet[IP].dst for packet in packets}) == traffic.vips
    for packet in packets[::10]:
        assert header_checksum(packet) == packet[IP].chksum
    if traffic.syn_every:
        assert [str(packet[TCP].flags) for packet in packets[:8]] == ["S", "A", "A", "A"] * 2


def header_checksum(packet):
    """The checksum that Scapy would give a packet's IP header."""
    copy = packet[IP].copy()
    del copy.chksum
    return IP(bytes(copy)).chksum
