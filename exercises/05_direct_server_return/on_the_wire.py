"""What an endpoint does on a wire: which addresses are its machine's, whom it answers, and in whose name it asks."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from scapy.compat import raw
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from lab.classroom import Case
from lab.classroom.wire import ADDRESSES, ENDPOINT, LINK_ADDRESSES, ROUTER, Wire, ip


def is_local(vip: Any) -> bool:
    """Says whether this machine's kernel takes packets for a VIP, as `ip_network` has it."""
    return str(json.loads(ip(f"-json -details route get {vip.network_address}"))[0]["type"]) == "local"


def arp_settings() -> dict[str, str]:
    """Returns what the kernel goes by for ARP, on all interfaces."""
    names = ("arp_ignore", "arp_announce")
    return {name: Path("/proc/sys/net/ipv4/conf/all", name).read_text().strip() for name in names}


def ethernet() -> Ether:
    """Returns the Ethernet header of what the router sends to the endpoint."""
    return Ether(src=LINK_ADDRESSES[ROUTER], dst=LINK_ADDRESSES[ENDPOINT])


def expect_silence(case: Case, wire: Wire, vip: str) -> None:
    """Asks for the VIP and then for the endpoint itself: only the second question may be answered."""
    for target in (vip, ADDRESSES[ENDPOINT]):
        case.step(f"r1 asks by ARP: who has {target}?")
        ask = ARP(hwsrc=LINK_ADDRESSES[ROUTER], psrc=ADDRESSES[ROUTER], pdst=target)
        wire.send(raw(Ether(src=LINK_ADDRESSES[ROUTER], dst="ff:ff:ff:ff:ff:ff") / ask))
    answered = wire.seen(lambda frame: _arp(frame, 2))
    case.expect_that(answered, f"expected an answer that {ADDRESSES[ENDPOINT]} is here, but none came")
    case.expect(answered.psrc, ADDRESSES[ENDPOINT], "whom the first answer is about")


def expect_modesty(case: Case, wire: Wire, vip: str, client: str) -> None:
    """Has the endpoint send as the VIP while it does not know its router: it asks for that in its own name."""
    ip(f"neigh flush dev {ENDPOINT}")
    case.step(f"the endpoint sends from {vip} to {client}, and has to ask for its router by ARP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((vip, 0))
        sender.sendto(b"hello", (client, 40001))
    question = wire.seen(lambda frame: _arp(frame, 1))
    case.expect_that(question, f"expected a question for {ADDRESSES[ROUTER]}, but none came")
    case.expect(question.psrc, ADDRESSES[ENDPOINT], "who asks")


def _arp(frame: bytes, operation: int) -> ARP | None:
    found = Ether(frame).getlayer(ARP)
    return found if found is not None and found.op == operation else None


def answer(frame: bytes, sequence: int) -> IP | None:
    """Returns the answer to a ping, if that is what a frame holds."""
    found = Ether(frame).getlayer(IP)
    is_it = found is not None and found.haslayer(ICMP) and (found[ICMP].type, found[ICMP].seq) == (0, sequence)
    return found if is_it else None
