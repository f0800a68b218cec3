"""BGP sessions with a password (RFC 2385): signed on the wire, refused with another, and told to nobody."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from commands import carriers
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from wires import VIP, VIP6, Tap, curl

from lab import evidence, observe, tcp_md5
from lab.waiting import wait_until

PASSWORD = "hush.every-Session:signs"
OTHER = "quite-another~one"
SIGNATURE = 19  # TCP option kind: 16 bytes of MD5
BGP_PORT = 179
TIMEOUT_S = 20.0

pytestmark = [
    pytest.mark.skipif(not tcp_md5.is_there(), reason="this kernel has no TCP MD5 signatures (RFC 2385)"),
    pytest.mark.topology("rack", maglevs=3, endpoints=2, clients=1, bgp_password=PASSWORD),
]


def segment_of(frame):
    """The BGP segment that a frame carries, with its IP header, as Scapy takes them apart; None of another."""
    packet = (IP if frame.packet[0] >> 4 == 4 else IPv6)(frame.packet)
    segment = packet.getlayer(TCP)
    return packet if segment is not None and BGP_PORT in (segment.sport, segment.dport) else None


def signature(segment):
    """The digest in a segment's options, found byte by byte; None if it bears none."""
    options = bytes(segment)[20 : segment.dataofs * 4]
    while options and options[0] != 0:
        size = 1 if options[0] == 1 else options[1]
        if options[0] == SIGNATURE:
            return options[2:size]
        options = options[size:]
    return None


def by_the_rfc(packet, password):
    """RFC 2385 §2.0: MD5 of pseudo header, TCP header without options and checksum, data, and the key."""
    segment = bytes(packet[TCP])
    length = packet.len - packet.ihl * 4 if packet.version == 4 else packet.plen
    ends = ip_address(packet.src).packed + ip_address(packet.dst).packed
    pseudo = struct.pack("!BBH", 0, 6, length) if packet.version == 4 else struct.pack("!II", length, 6)
    header, data = segment[:16] + bytes(2) + segment[18:20], segment[packet[TCP].dataofs * 4 : length]
    return hashlib.md5(ends + pseudo + header + data + password.encode()).digest()


@pytest.mark.parametrize("version", [4, 6])
def test_every_segment_is_signed_with_the_password(lab, version):
    assert lab.snapshot().routers["r1"].sessions == dict.fromkeys(lab.maglevs, "Established")
    seen = {}  # (from, to): how many segments were right

    def is_the_last(frame):
        packet = segment_of(frame)
        if packet is None or packet.version != version:
            return False
        found, right = signature(packet[TCP]), by_the_rfc(packet, PASSWORD)
        assert found == right, f"{packet.summary()} should be signed {right.hex()}, but: {found and found.hex()}"
        seen[packet.src, packet.dst] = seen.get((packet.src, packet.dst), 0) + 1
        return len(seen) == 6 and min(seen.values()) >= 2

    with Tap(lab.node("r1")) as tap:
        tap.wait_for(is_the_last, "two signed segments each way of three sessions", TIMEOUT_S)


@pytest.fixture
def with_its_own_password(lab) -> Iterator:
    """Returns what starts a Maglev again with another password; at the end all have the same again."""
    yield lambda maglev, password: _restart(lab, maglev, password)
    for maglev in lab.maglevs:
        if lab.node(maglev).bgp_password != PASSWORD:
            _restart(lab, maglev, PASSWORD)
    lab.wait_converged()


def _restart(lab, maglev, password):
    with lab.kill(maglev):
        lab.node(maglev).bgp_password = password


def refused(router):
    """How many segments this kernel has refused for their signature: a wrong one, or none (proc(5), TcpExt)."""
    names, values = [line.split()[1:] for line in router.run("cat", "/proc/net/netstat").stdout.splitlines()[:2]]
    counts = dict(zip(names, map(int, values), strict=True))
    return counts["TCPMD5Failure"] + counts["TCPMD5NotFound"]


@pytest.mark.parametrize("password", [OTHER, ""], ids=["another", "none"])
def test_a_maglev_with_a_wrong_password_is_not_heard_and_the_others_serve(lab, with_its_own_password, password):
    router = lab.node("r1")
    before = refused(router)
    with_its_own_password("m2", password)
    others = {4: ("10.1.1.2", "10.1.3.2"), 6: ("fd00:1:1::2", "fd00:1:3::2")}

    def missing():
        attempts = refused(router) - before
        return "" if attempts >= 5 else f"{attempts} segments were refused"

    wait_until(missing, TIMEOUT_S, "attempts of m2 to open its sessions")
    sessions = lab.snapshot().routers["r1"].sessions
    assert {name: sessions[name] for name in ("m1", "m3")} == {"m1": "Established", "m3": "Established"}
    assert "Established" not in sessions["m2"], sessions
    assert observe.ecmp(router) == {VIP: others[4], VIP6: others[6]}
    answers = curl(lab, f"'http://{VIP}/?[1-40]'", "-H", "'Connection: close'")
    assert re.findall(r"(s\d) answers", answers).count("s1") not in (0, 40), f"both should answer: {answers}"
    assert answers.count("answers") == 40
    with_its_own_password("m2", PASSWORD)
    lab.wait_converged()
    assert lab.snapshot().routers["r1"].sessions == dict.fromkeys(lab.maglevs, "Established")


def test_nobody_is_told_the_password(lab, with_its_own_password, tmp_path):
    """Not the list of processes, nor any log, nor a file that others may read, nor what is kept of a failed test."""
    with_its_own_password("m2", OTHER)  # a session that fails has more to say
    wait_until(lambda: "" if refused(lab.node("r1")) else "no", TIMEOUT_S, "an attempt of m2")
    processes = carriers(lab.id)
    assert len(processes) > 10, f"the test is void: only {processes} were found"
    for process in processes:
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{process}/{name}").read_bytes()
            assert not any(word.encode() in shown for word in (PASSWORD, OTHER)), f"{name} of {shown[:80]!r} shows it"
    holding = holders(lab.directory)
    assert sorted(holding) == [*(f"{maglev}/exabgp.conf" for maglev in lab.maglevs), "r1/bird.conf"]
    assert set(holding.values()) == {0o600}, holding
    said = lab.node("r1").birdc("show", "protocols", "all")
    assert PASSWORD not in said
    evidence.keep(lab, tmp_path / "evidence")
    assert (tmp_path / "evidence" / "nodes" / "r1" / "bird.conf").exists()
    assert holders(tmp_path) == {}, "what is kept of a failed test goes to others"


def holders(directory):
    """The files below a directory in which a password stands, and who may read them."""
    return {
        str(file.relative_to(directory)): stat.S_IMODE(file.stat().st_mode)
        for place, _, names in os.walk(directory)
        for file in (Path(place) / name for name in names)
        if file.is_file() and any(word.encode() in file.read_bytes() for word in (PASSWORD, OTHER))
    }
