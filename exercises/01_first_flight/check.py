"""Judges the first flight's answers: types them into a rack of its own, and looks what really happens there."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scapy.compat import raw
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet as Layers
from scapy.packet import Raw
from scapy.utils import wrpcap

from lab.classroom import Case, criterion
from lab.classroom.asking import ask
from lab.ways import Flow as Way
from maglev.flow import TCP as TCP_NUMBER
from maglev.flow import Flow, pack_address, selection_hash
from maglev.hashing import lookup_table

REFERENCE = "lab.by_hand"
LIVE = {"topology": "rack", "endpoints": 4, "clients": 1}

CLIENT, VIP, VIP_PORT = "10.0.1.2", "192.0.2.1", 80
PORTS = 6  # connections that are asked about
LONGEST_S = 5.0  # for a command
CONNECTIONS, ENDPOINTS = 200, 4
EVENTS = ("a Maglev dies", "it returns", "an endpoint dies")
DEVIATIONS = 4.5  # that a count may be off


@criterion(
    step=2, seconds=25, lab={"topology": "rack", "maglevs": 3, "endpoints": 2, "clients": 1},
    hint="r1's kernel hashes source, destination, protocol and both ports: a question has to name them all",
)  # fmt: skip
def follows_it_to_the_maglev(lab: Any, case: Case) -> None:
    """What is typed at r1 shows the VIP's next hops, and to which Maglev it sends a connection."""
    names = {lab.node(name).address: name for name in lab.maglevs}
    shown = _typed(lab, case, "r1", _text(lab, case, "routes"))
    case.expect(sorted(_named(shown, names)), sorted(names.values()), "the next hops that it shows")
    ports = case.random.sample(range(20_000, 30_000), PORTS)
    with lab.ways() as record:
        for port in ports:
            _connect(lab, port)
        went = {port: record.ways()[Way(CLIENT, port, VIP_PORT)] for port in ports}
    for port, really in went.items():
        shown = _typed(lab, case, "r1", _text(lab, case, "maglev_of", port))
        case.step(f"r1 has sent the packets from port {port} to {', '.join(really)}")
        case.expect(_named(shown, names), set(really), "the Maglev that it shows")


@criterion(
    step=3, seconds=25, lab={"topology": "rack", "maglevs": 2, "endpoints": 5, "clients": 1},
    hint="another connection is another flow, and may have another endpoint: what has curl take one port?",
)  # fmt: skip
def follows_it_to_the_endpoint(lab: Any, case: Case) -> None:
    """What is typed at c1 shows which endpoint the connection from a port has."""
    names = {lab.node(name).address: name for name in lab.endpoints}
    spoken = {name: name for name in lab.endpoints} | names
    table = lookup_table(sorted(names, key=pack_address), lab.config.forwarder.table_size)
    in_order = [names[address] for address in sorted(names, key=pack_address)]
    for port in case.random.sample(range(20_000, 30_000), PORTS):
        shown = _typed(lab, case, "c1", _text(lab, case, "endpoint_of", port))
        flow = Flow(pack_address(CLIENT), pack_address(VIP), TCP_NUMBER, port, VIP_PORT)
        expected = in_order[table[selection_hash(flow) % len(table)]]
        case.step(f"by Maglevs' lookup table the connection from port {port} has {expected}")
        case.expect(_named(shown, spoken), {expected}, "the endpoint that it shows")


@criterion(step=4, hint="ip[n:2] is two bytes of the outer packet: count what stands in front of TCP's source port")
def sees_it_in_gre(student: Any, case: Case) -> None:
    """Through the filter tcpdump sees the packets of one connection in GRE, and nothing else."""
    if shutil.which("tcpdump") is None:
        case.skip("tcpdump is not installed here")
    for _ in range(2):
        port = case.random.randrange(20_000, 30_000)
        chosen = case.call(student.seen_at_endpoint, port)
        case.expect_that(isinstance(chosen, str), f"expected a filter as text, got {chosen!r}")
        case.step(f"its filter is: {chosen}")
        for what, packet, is_it in _packets(port):
            case.expect(_sees(case, chosen, packet), is_it, f"whether it lets {what} through")


@criterion(
    step=5, seconds=40, lab={"topology": "rack", "maglevs": 3, "endpoints": 4, "clients": 1},
    hint="ask of each event who knows the connection afterwards: its endpoint? and does any Maglev still find that?",
)  # fmt: skip
def predicts_what_breaks(lab: Any, case: Case) -> None:
    """What was predicted is what happens to 200 connections, when a Maglev dies and returns, and an endpoint dies."""
    predicted = _predicted(lab, case)
    maglev, endpoint = case.random.choice(lab.maglevs), case.random.choice(lab.endpoints)
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        with lab.kill(maglev):
            _settle(lab, conns)
            died = conns.broken
        _settle(lab, conns)
        returned = conns.broken - died
        lab.kill(endpoint)
        _settle(lab, conns)
        really = dict(zip(EVENTS, (died, returned, conns.broken - died - returned), strict=True))
    case.step(f"{maglev} died: {died} of {CONNECTIONS} connections broke; it returned: {returned} broke")
    case.step(f"{endpoint} died: {really[EVENTS[2]]} broke")
    for event, number in really.items():
        share = 1 / ENDPOINTS if number else 0.0
        room = DEVIATIONS * math.sqrt(CONNECTIONS * share * (1 - share))
        near = abs(predicted[event] - number) <= room
        case.expect_that(near, f"{event}: {number} connections broke, you expected {predicted[event]}")


@criterion(step=6, hint="for each statement think of a packet, or of a table, that would show it to be false")
def knows_why(student: Any, case: Case) -> None:
    """The README's statements that are true are known, and those that are not."""
    said = case.call(student.true_statements)
    letters = set(said if isinstance(said, str) else "")
    case.expect_that(
        letters and letters <= set(STATEMENTS), f'expected letters from a to f, such as "ad", got {said!r}'
    )
    for letter, (is_true, why) in STATEMENTS.items():
        if (letter in letters) != is_true:
            case.step(f"statement {letter}: think about {why}")
            case.wrong(f"{letter} is said to be {'false' if is_true else 'true'}")


STATEMENTS = {  # of the README: whether each is true, and what to think about
    "a": (False, "the way of the answers, and what a Maglev would have to see to count bytes"),
    "b": (True, "what m2 and m3 know of a connection that m1 has had, and what they know as well as m1"),
    "c": (True, "the connection table of a Maglev that a connection comes to for the first time"),
    "d": (False, "who says to r1 that a Maglev is gone, and how r1 learns of it when nobody can say anything any more"),
    "e": (False, "what a packet's bytes between client and VIP are, at c1, in GRE and at the server"),
    "f": (True, "who else holds the VIP, and who on the wire is told so"),
}


# What is typed, and what is seen


def _text(lab: Any, case: Case, name: str, *arguments: int) -> str:
    said = ask(lab, REFERENCE, name, *arguments)
    case.expect_that(isinstance(said, str) and said, f"expected {name} to be a command, got {said!r}")
    return str(said)


def _typed(lab: Any, case: Case, node: str, command: str) -> str:
    """Returns what a command prints on a node."""
    case.step(f"typed: {node} {command}")
    try:
        done = lab.run(node, command, timeout_s=LONGEST_S)
    except subprocess.TimeoutExpired:
        case.wrong(f"expected the command to end within {LONGEST_S:g} s, but it goes on")
    case.step(f"it printed: {' '.join((done.stdout + done.stderr).split())[:150] or 'nothing'}")
    return str(done.stdout)


def _named(text: str, names: Mapping[str, str]) -> set[str]:
    """Returns whom a text names, by one of the words."""
    return {name for word, name in names.items() if re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.]*\w)", text)}


def _connect(lab: Any, port: int) -> None:
    done = lab.run("c1", f"curl -s -m 5 --local-port {port} http://{VIP}/")
    assert done.returncode == 0, done.stderr


def _settle(lab: Any, conns: Any) -> None:
    lab.wait_converged()
    conns.wait_settled()


def _predicted(lab: Any, case: Case) -> dict[str, int]:
    said = ask(lab, REFERENCE, "predictions")
    whole = isinstance(said, dict) and sorted(said) == sorted(EVENTS)
    case.expect_that(whole and all(isinstance(each, int) for each in said.values()), _wanted(said))
    case.step("you expected: " + ", ".join(f"{event}: {number}" for event, number in said.items()))
    return dict(said)


def _wanted(said: object) -> str:
    return f"expected a whole number for each of {', '.join(EVENTS)}, got {said!r}"


def _packets(port: int) -> list[tuple[str, Layers, bool]]:
    """Returns packets as they come by s1's interface: what each is, and whether it is of the connection, in GRE."""

    def in_gre(inner: Layers, maglev: str = "10.1.1.2") -> Layers:
        return IP(src=maglev, dst="10.2.1.2", flags="DF") / GRE(proto=0x0800) / inner

    ip, mine = IP(src=CLIENT, dst=VIP), TCP(sport=port, dport=VIP_PORT, flags="A")
    return [
        ("its SYN", in_gre(ip / TCP(sport=port, dport=VIP_PORT, flags="S")), True),
        ("a segment of it", in_gre(ip / mine / Raw(b"GET / HTTP/1.1\r\n")), True),
        ("a segment of it, by another Maglev", in_gre(ip / mine / Raw(bytes(1400)), "10.1.3.2"), True),
        ("another connection", in_gre(ip / TCP(sport=port + 1, dport=VIP_PORT, flags="A")), False),
        ("a datagram from the same port", in_gre(ip / UDP(sport=port, dport=7) / Raw(bytes(20))), False),
        ("its answer", IP(src=VIP, dst=CLIENT) / TCP(sport=VIP_PORT, dport=port, flags="A"), False),
        ("the same packet before a Maglev had it", ip / mine / Raw(bytes(20)), False),
        (
            "a Maglev's health check",
            IP(src="10.1.1.2", dst="10.2.1.2") / TCP(sport=port, dport=80) / Raw(b"GET"),
            False,
        ),
    ]


def _sees(case: Case, chosen: str, packet: Layers) -> bool:
    """Says whether tcpdump lets a packet through its filter."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "packet.pcap")
        wrpcap(str(file), [Ether(raw(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet))])
        done = subprocess.run(
            ["tcpdump", "-nr", str(file), "--", chosen], capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    said = [line for line in done.stderr.splitlines() if not line.startswith(("reading from", "Warning"))]
    if done.returncode != 0:
        case.wrong(f"expected a filter that tcpdump understands; it says: {said[-1] if said else done.returncode}")
    return bool(done.stdout.strip())
