"""Judges an endpoint (direct server return, Maglev §2.1): on bytes by Scapy, on a wire of its own, and in a lab."""

from __future__ import annotations

import contextlib
import os
import select
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import GRE
from scapy.packet import Raw

from lab import verify
from lab.classroom import Case, criterion
from lab.classroom.exercise import beside
from lab.classroom.wire import ADDRESSES, ENDPOINT, ip, joined
from maglev.direct_return import Settings, Trouble
from maglev.engine.decapsulation import AT_ONCE, Received, open_receivers
from maglev.errors import Discard, Reason
from maglev.flow import pack_address

tunnel, on_the_wire, machines = (beside(__file__, name) for name in ("tunnel", "on_the_wire", "machines"))

REFERENCE = ("maglev.gre", "maglev.engine.decapsulation", "maglev.engine.held_vips", "maglev.direct_return")
LIVE = {"topology": "rack", "endpoints": 4}

MAGLEVS, VIPS, CLIENT = tunnel.MAGLEVS, tunnel.VIPS, tunnel.CLIENT
OWN = ADDRESSES[ENDPOINT]
TUN = "/dev/net/tun"
LARGEST_PING_BYTES = 1500 - 20 - 8  # what a client's link carries of it


@criterion(step=1, hint="4 bytes are GRE's; what follows is the client's packet, byte for byte")
def takes_the_packet_out(student: Any, case: Case) -> None:
    """What was put into GRE comes out as it was, IPv4 and IPv6."""
    for inner in (*tunnel.packets(case, VIPS[0]), *tunnel.packets(case, VIPS[2])):
        gre = raw(GRE(proto=tunnel.ethertype(inner)) / Raw(raw(inner)))
        case.step(f"{inner.summary()} in GRE: {gre[:4].hex(' ')}, and {len(gre) - 4} bytes")
        case.expect(student.payload_of(gre), raw(inner), "what was put in")


@criterion(step=1, hint="a key, a checksum or a sequence number takes room; who does not know that reads them as IP")
def refuses_what_it_does_not_know(student: Any, case: Case) -> None:
    """GRE with options, of another version, with something else inside or too little of it, is refused."""
    v4, v6 = raw(tunnel.packets(case, VIPS[0])[0]), raw(tunnel.packets(case, VIPS[2])[0])
    wrong = {
        "a key": GRE(key_present=1, key=7, proto=0x0800) / Raw(v4),
        "a checksum": GRE(chksum_present=1, proto=0x0800) / Raw(v4),
        "a sequence number": GRE(seqnum_present=1, sequence_number=9, proto=0x86DD) / Raw(v6),
        "recursion control 1, which is for Maglevs": GRE(recursion_control=1, proto=0x0800) / Raw(v4),
        "version 1": GRE(version=1, proto=0x0800) / Raw(v4),
        "Ethernet inside": GRE(proto=0x6558) / Raw(v4),
        "IPv6 that is called IPv4": GRE(proto=0x0800) / Raw(v6),
        "IPv4 that is called IPv6": GRE(proto=0x86DD) / Raw(v4 + bytes(40)),
        "19 bytes of an IPv4 header": GRE(proto=0x0800) / Raw(v4[:19]),
        "39 bytes of an IPv6 header": GRE(proto=0x86DD) / Raw(v6[:39]),
        "3 bytes in all": Raw(bytes(3)),
    }
    for what, packet in wrong.items():
        case.step(f"GRE with {what}: {raw(packet)[:8].hex(' ')} …")
        tunnel.expect_reason(case, lambda packet=packet: student.payload_of(raw(packet)), Reason.BAD_GRE_HEADER)


@criterion(step=2, hint="who sent it is in received.source, whom it is for in the inner header: which bytes are that?")
def only_maglevs_and_only_vips(student: Any, case: Case) -> None:
    """In comes what a Maglev sent for a VIP; anybody else's is kept out, and what is for another address."""
    gate = tunnel.a_gate(student)
    for sender, vip, expected in [
        (MAGLEVS[0], VIPS[0], None), (MAGLEVS[1], VIPS[1], None), (MAGLEVS[0], VIPS[2], None),
        (MAGLEVS[2], VIPS[0], None), (MAGLEVS[2], VIPS[2], None),
        ("10.1.3.2", VIPS[0], Reason.NOT_FROM_MAGLEV), (CLIENT, VIPS[1], Reason.NOT_FROM_MAGLEV),
        ("fd00:1:3::2", VIPS[2], Reason.NOT_FROM_MAGLEV), (OWN, VIPS[0], Reason.NOT_FROM_MAGLEV),
        (MAGLEVS[0], OWN, Reason.NOT_VIP), (MAGLEVS[0], "192.0.2.3", Reason.NOT_VIP),
        (MAGLEVS[2], "2001:db8::2", Reason.NOT_VIP),
    ]:  # fmt: skip
        tunnel.expect_fate(case, gate, sender, case.random.choice(tunnel.packets(case, vip)), expected)
    answer = IP(src=VIPS[0], dst=CLIENT) / TCP(sport=80)
    tunnel.expect_fate(case, gate, MAGLEVS[0], answer, Reason.NOT_VIP)


@criterion(step=2, hint="self.count(…), once, when nothing stands against the packet any more")
def counts_what_comes_in(student: Any, case: Case) -> None:
    """What was let in is counted, by Maglev, and what was kept out is not."""
    gate, expected = tunnel.a_gate(student), {ip_address(maglev): [0, 0] for maglev in MAGLEVS}
    for _ in range(20):
        sender = case.random.choice([*MAGLEVS, "10.1.3.2"])
        inner = raw(case.random.choice(tunnel.packets(case, case.random.choice([VIPS[0], VIPS[2], "192.0.2.9"]))))
        with contextlib.suppress(Discard):
            gate.admit(tunnel.in_gre(sender, inner))
            expected[ip_address(sender)][0] += 1
            expected[ip_address(sender)][1] += len(inner)
    case.step("20 packets came, from Maglevs and a stranger, for VIPs and another address")
    got = {address: list(counts) for address, counts in gate.received().items()}
    for address, counts in expected.items():
        case.expect(got.get(address), counts, f"packets and bytes from {address}")


@criterion(step=3, hint="try, for each packet by itself: one that is refused is counted, and the next one is looked at")
def carries_and_counts(student: Any, case: Case) -> None:
    """What may come in goes into the device, packet by packet; the rest is counted by its reason, and stops nobody."""
    good = [raw(packet) for _ in range(3) for packet in tunnel.packets(case, VIPS[0])]
    bad = [
        (Received(pack_address(MAGLEVS[0]), b"\x20\0\x08\0" + good[0]), Reason.BAD_GRE_HEADER),
        (tunnel.in_gre("10.1.3.2", good[1]), Reason.NOT_FROM_MAGLEV),
        (tunnel.in_gre(MAGLEVS[0], raw(tunnel.packets(case, OWN)[0])), Reason.NOT_VIP),
        (tunnel.in_gre(MAGLEVS[0], raw(tunnel.packets(case, OWN)[1])), Reason.NOT_VIP),
    ]
    came = [(tunnel.in_gre(MAGLEVS[0], inner), None) for inner in good] + bad
    case.random.shuffle(came)
    case.step("came: " + ", ".join(reason.value if reason else "good" for _, reason in came))
    gate, device = tunnel.a_gate(student), tunnel.Device()
    student.pump_once([tunnel.Waiting(case, [received for received, _ in came])], device.descriptor, gate)
    carried = [received.gre[4:] for received, reason in came if reason is None]
    case.expect(len(found := device.taken()), len(carried), "packets in the device")
    case.expect_that(found == carried, "expected the packets as they came, in their order; got others")
    case.expect(dict(gate.reasons), dict(Counter(reason for _, reason in bad)), "what was kept out, by reason")
    case.step("the device takes nothing any more")
    device.close()
    student.pump_once([tunnel.Waiting(case, [tunnel.in_gre(MAGLEVS[0], good[0])])], device.descriptor, gate)
    case.expect(gate.reasons[Reason.SEND_FAILED], 1, "what the device did not take")


@criterion(step=3, hint="select.select(receivers, [], []) says whose packets wait; AT_ONCE of each, then the others")
def nobody_waits_for_the_other(student: Any, case: Case) -> None:
    """Of a receiver that has no end of packets, AT_ONCE are carried before others have their turn."""
    flood, other = raw(tunnel.packets(case, VIPS[0])[0]), raw(tunnel.packets(case, VIPS[2])[0])
    silent = tunnel.Waiting(case, [])
    stream = tunnel.Waiting(case, [tunnel.in_gre(MAGLEVS[0], flood)] * 10 * AT_ONCE)
    little = tunnel.Waiting(case, [tunnel.in_gre(MAGLEVS[2], other)])
    gate, device = tunnel.a_gate(student), tunnel.Device()
    case.step(f"one receiver has nothing, one {10 * AT_ONCE} packets, one a single packet")
    student.pump_once([silent, stream, little], device.descriptor, gate)
    carried = device.taken()
    case.expect_that(other in carried, f"expected the single packet among the first {len(carried)}; it still waits")
    before = carried.index(other)
    case.expect_that(before <= AT_ONCE, f"expected at most {AT_ONCE} packets before the single one, got {before}")


@criterion(step=4, hint="ip address add … dev lo, for what is wanted and not held; del for what is held and not wanted")
def holds_the_vips(student: Any, case: Case) -> None:
    """The kernel takes packets for the VIPs that are held, and for no others; with the endpoint all of them go."""
    joined(case)
    first, second, third = (ip_network(vip) for vip in ("192.0.2.1", "192.0.2.2", "192.0.2.3"))
    ip(f"address add {second} dev lo")
    case.step(f"{second} is on the loopback interface already, left behind by an endpoint that was killed")
    with contextlib.ExitStack() as undo:
        held = student.HeldVips(undo)
        for vips in ([first], [first, second], [second, third], [second, third], []):
            case.step(f"asked to hold {', '.join(map(str, vips)) or 'nothing'}")
            held.follow(vips)
            there = [
                vip for vip in filter(on_the_wire.is_local, (first, second, third)) if vip != second or vip in vips
            ]
            case.expect(list(map(str, there)), list(map(str, vips)), "the VIPs that are this machine's")
        held.follow([first, third])
        case.step(f"holds {first} and {third}, and the endpoint ends")
    left = [str(vip) for vip in filter(on_the_wire.is_local, (first, third))]
    case.expect(left, [], "what is still held")


@criterion(step=4, hint="arp_ignore is about answers, arp_announce about questions; see ip-sysctl.rst for the numbers")
def silent_about_them(student: Any, case: Case) -> None:
    """Nobody on the wire is told of a VIP: neither when he asks for it, nor when the endpoint asks for its router."""
    wire = joined(case)
    before = on_the_wire.arp_settings()
    with contextlib.ExitStack() as undo:
        student.HeldVips(undo).follow([ip_network(VIPS[0])])
        on_the_wire.expect_silence(case, wire, VIPS[0])
        on_the_wire.expect_modesty(case, wire, VIPS[0], CLIENT)
        case.step("the endpoint ends")
    case.expect(on_the_wire.arp_settings(), before, "net.ipv4.conf.all as it was before")


@criterion(step=5, hint="the kernel goes by the greater of conf/all/rp_filter and conf/maglev0/rp_filter")
def answers_go_another_way(student: Any, case: Case) -> None:
    """On a machine with a strict reverse path filter, pings in GRE are answered: by the VIP, past the Maglev."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        case.skip(f"this user may not open {TUN}; root may")
    wire = joined(case)
    for name in ("all", "default", ENDPOINT):
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("1")
    case.step("net.ipv4.conf.all.rp_filter, and every interface's, is 1: strict")
    with contextlib.ExitStack() as undo:
        device = student.make_tun_device(undo)
        receivers = open_receivers([ip_address(MAGLEVS[0])], undo)
        student.HeldVips(undo).follow([ip_network(VIPS[0])])
        gate = student.Gate([ip_address(MAGLEVS[0])], [ip_network(VIPS[0])])
        for size in (8, LARGEST_PING_BYTES):
            ping = IP(src=CLIENT, dst=VIPS[0]) / ICMP(id=7, seq=size) / Raw(bytes(size))
            case.step(f"m1 sent a ping of {size} bytes from {CLIENT} to {VIPS[0]}, in GRE")
            wire.send(raw(on_the_wire.ethernet() / IP(src=MAGLEVS[0], dst=OWN) / GRE(proto=0x0800) / ping))
            case.expect_that(select.select(receivers, [], [], 3.0)[0], "expected GRE at the endpoint, but none came")
            student.pump_once(receivers, device, gate)
            case.step(f"kept out so far: {dict(gate.reasons) or 'nothing'}")
            answer = wire.seen(lambda frame, size=size: on_the_wire.answer(frame, size))
            case.expect_that(answer, "expected an answer on the wire, but none came in 3 s")
            case.expect((answer.src, answer.dst), (VIPS[0], CLIENT), "who answers, and whom")


@criterion(
    step=5, seconds=40, lab={"topology": "rack", "maglevs": 2, "endpoints": 2, "clients": 1},
    hint="maglab try 5, and look: ip address and sysctl net.ipv4.conf at s1, tcpdump at its interfaces",
)  # fmt: skip
def carries_connections(lab: Any, case: Case) -> None:
    """In a lab all connections live on the student's endpoints, and no answer crosses a Maglev."""
    before = lab.snapshot()
    case.step("60 connections are opened, over two Maglevs and two endpoints")
    with lab.connections(60) as conns:
        conns.wait_settled()
        fates = Counter(each.fate for each in conns.all())
        case.expect_that(fates == {"alive": 60}, f"expected 60 connections alive, got {dict(fates)}")
        verdict = verify.direct_server_return(lab.snapshot(), before)
        case.expect_that(verdict.holds, f"expected {verdict.expected}, got {verdict.actual}")


@criterion(step=6, hint="which of the two numbers does the kernel go by, all's or the interface's? and what adds GRE?")
def finds_what_is_wrong(student: Any, case: Case) -> None:
    """Of machines with settings of all kinds, what keeps each from answering is found, and nothing else."""
    for _ in range(40):
        machine, expected = machines.random_machine(case)
        case.step(machines.in_words(machine))
        got = student.troubles_of(machine, [ip_address(VIPS[0])], ip_address(OWN))
        case.expect(sorted(map(str, got)), sorted(map(str, expected)), "the troubles")
    for version, overhead in ((4, 24), (6, 44)):
        own = ip_address(OWN if version == 4 else "fd00:2:1::2")
        for mtu in (1500, 1500 + overhead - 1, 1500 + overhead):
            case.step(f"the endpoint's address is {own}, and its link's MTU {mtu}")
            machine = machines.a_machine(Settings(), Settings(0, 1, 2), Settings(), own, mtu)
            got = student.troubles_of(machine, [ip_address(VIPS[0])], own)
            case.expect(Trouble.MTU in got, mtu < 1500 + overhead, "whether the MTU is a trouble")


@criterion(
    step=6, seconds=40, lab={"topology": "rack", "maglevs": 1, "endpoints": 4, "clients": 1},
    hint="GET /status of an endpoint has your findings: curl --unix-socket …/s1/control.sock http://m/status",
)  # fmt: skip
def finds_three_planted_faults(lab: Any, case: Case) -> None:
    """In a lab three faults are planted on three of four endpoints, whose health checks go on well; they are found."""
    plan = _planned(lab, case)
    for name in lab.endpoints:
        case.expect(machines.found_in(lab, name, set()), set(), f"what is wrong with {name}, before anything is")
    for name, trouble in plan.items():
        command = _command(name, trouble)
        case.step(f"on {name}: {command}")
        done = lab.run(name, command)
        case.expect_that(done.returncode == 0, f"{command}: {done.stderr}")
    for name in lab.endpoints:
        expected = {str(plan[name])} if name in plan else set()
        case.expect(machines.found_in(lab, name, expected), expected, f"what is wrong with {name}")
    case.expect(machines.healthy(lab), 4, "the number of endpoints that m1 finds healthy, all the same")


PLANTS = {  # trouble: what makes it
    Trouble.NO_VIP: "ip address del 192.0.2.1/32 dev lo",
    Trouble.ARP: "sysctl -qw net.ipv4.conf.all.arp_ignore=0",
    Trouble.REVERSE_PATH: "sysctl -qw net.ipv4.conf.maglev0.rp_filter=1",
    Trouble.MTU: "ip link set {link} mtu 1500",
}


def prepare(lab: Any) -> str:
    """Plants three faults for `maglab try`, on three of the four endpoints; says no more than that."""
    for name, trouble in _planned(lab, Case(int.from_bytes(os.urandom(4), "big"))).items():
        lab.run(name, _command(name, trouble))
    return "three of the endpoints have a fault now, each another one: find them"


def _planned(lab: Any, case: Case) -> dict[str, Trouble]:
    """Returns three endpoints, and what each shall suffer from."""
    return dict(zip(case.random.sample(lab.endpoints, 3), case.random.sample(list(PLANTS), 3), strict=True))


def _command(name: str, trouble: Trouble) -> str:
    return PLANTS[trouble].format(link=f"{name}-eth0")
