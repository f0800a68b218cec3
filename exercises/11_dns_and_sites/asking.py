"""Questions to a name server: a client subnet as Scapy writes it, and somebody in a lab who asks for its clients."""

from __future__ import annotations

import math
import select
import socket
from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from scapy.compat import raw
from scapy.layers.dns import DNS, DNSQR, DNSRROPT, EDNS0ClientSubnet

from lab.classroom import Case
from lab.errors import LabError
from lab.namespace import within
from lab.waiting import wait_until
from maglev.engine.control import request

IDLE, BUSY = (0.0, 0.5), (1.2, 99.0)  # loads
QUERIES, PATIENCE_S, ANSWER_S = 20, 20.0, 5.0


def subnets(case: Case) -> list[tuple[int, Any]]:
    """Returns prefixes and the numbers of their families; Scapy cannot write the one of no bits."""
    found: list[tuple[int, Any]] = [(1, ip_network("10.0.1.0/24")), (2, ip_network("2001:db8::/56"))]
    for length in (1, 7, 8, 9, 20, 31, 32):
        found.append((1, IPv4Network((case.random.getrandbits(32), length), strict=False)))
    for length in (1, 33, 48, 63, 64, 128):
        found.append((2, IPv6Network((case.random.getrandbits(128), length), strict=False)))
    return found


def written(family: int, network: Any, scope: int = 0) -> bytes:
    """Returns an option's content as Scapy writes it, without the option's own number and length."""
    address = str(network.network_address)
    option = EDNS0ClientSubnet(family=family, source_plen=network.prefixlen, scope_plen=scope, address=address)
    return raw(option)[4:]


class Asker:
    """Asks the name server from a client's network, and tells what it says."""

    def __init__(self, lab: Any, case: Case) -> None:
        self.lab, self.case = lab, case
        self.server = lab.node("ns1")
        self.socket = within(lab.node("c1").pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.socket.connect((self.server.address, 53))
        self.sites = {"192.0.2.17": "zurich", "192.0.2.33": "new-york"}

    def expect_all(self, network: Any, site: str, whose: str, zurich: tuple[float, float] = IDLE) -> None:
        """Asks some times for a network's clients while Zurich has a load within limits; expects always one site."""
        self.wait_for(zurich)
        counted = self.count(network)
        while self.amiss(zurich):  # it was otherwise, meanwhile: that says nothing
            self.wait_for(zurich)
            counted = self.count(network)
        loads = {name: round(load, 2) for name, load in self.status()["loads"].items()}
        self.case.step(f"asked {QUERIES} times for {network}, loads {loads}: {dict(counted)}")
        self.case.expect(dict(counted), {site: QUERIES}, f"where {whose} are sent")

    def count(self, network: Any) -> Counter[str]:
        """Returns how often each site is the answer."""
        return Counter(self.ask(network) for _ in range(QUERIES))

    def ask(self, network: Any) -> str:
        """Returns the site whose address is the answer; Wrong if there is no answer that counts."""
        number = self.case.random.randrange(1 << 16)
        told = EDNS0ClientSubnet(source_plen=network.prefixlen, address=str(network.network_address))
        question = DNSQR(qname="www.lab.example", qtype="A")
        self.socket.send(raw(DNS(id=number, rd=0, qd=question, ar=DNSRROPT(rclass=1232, rdata=[told]))))
        if not select.select([self.socket], [], [], ANSWER_S)[0]:
            raise LabError(f"the name server does not answer: {self._last_words()}")
        answer = DNS(self.socket.recv(4096))
        if answer.id != number or answer.rcode or not answer.ancount:
            self.case.wrong(f"expected an address for a client in {network}, got {answer.summary()}")
        return self.sites.get(answer.an[0].rdata, answer.an[0].rdata)

    def wait_for(self, zurich: tuple[float, float]) -> None:
        """Waits until the name server believes what it should of the sites."""
        wait_until(lambda: self.amiss(zurich), PATIENCE_S, f"a load of Zurich from {zurich[0]:g} to {zurich[1]:g}")

    def amiss(self, zurich: tuple[float, float]) -> str:
        """Returns what the name server does not believe: that all VIPs serve, Zurich's load, New York without one."""
        status = self.status()
        if not all(status["vips"]["www"].values()):
            return f"the VIPs that serve are {status['vips']['www']}"
        for site, (least, most) in (("zurich", zurich), ("new-york", IDLE)):
            if not least <= (load := status["loads"].get(site, math.nan)) <= most:
                return f"{site} has a load of {load:.2f}"
        return ""

    def status(self) -> Mapping[str, Any]:
        """Returns what the name server says of itself."""
        return request(self.server.control, "GET", "/status")

    def _last_words(self) -> str:
        """Returns the last error in its log, which is a student's."""
        lines = (self.server.directory / "nameserver.log").read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if "Error" in line), "it said nothing")
