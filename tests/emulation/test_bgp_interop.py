"""BIRD, FRR and GoBGP, each against the others and a Maglev's ExaBGP: sessions, VIPs, and who stands in for whom.

           r1 BIRD ------ r2 FRR          all three linked to each other and to m1, over both families
              |  \\       /  |
              |   r3 GoBGP  |             GoBGP has no hand in the kernel's routes: its table is looked at
              |      |      |
              `----- m1 ----'

Whoever loses its link to m1 must take the VIP from the other two, by both.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

pytest.importorskip("mininet.topo", reason="labs are Mininet's: needs Debian's package mininet")

from mininet.topo import Topo
from wires import VIP, VIP6

from lab.frr import PROGRAMS, FrrRouter
from lab.network import Net
from lab.nodes import MAGLEV_AS, LabNode, Maglev, Router
from lab.site import Site
from lab.waiting import wait_until
from topologies.rack import cluster

AS_OF = {"r1": 65010, "r2": 65020, "r3": 65030}
DEADLINE_S = 30.0


class GoBgp(LabNode):
    """A router whose BGP is GoBGP's."""

    role = "router"

    @property
    def asn(self) -> int:
        return int(self.params["asn"])

    def sessions_wanted(self) -> dict[str, int]:
        """Returns the AS of each neighbour, by its address."""
        ends = [(other, MAGLEV_AS) for _, other in self.neighbours("maglev")]
        ends += [(other, other.node.asn) for _, other in self.neighbours("router")]
        return {address: asn for other, asn in ends for address in self.addresses_of(other).values()}

    def start_daemons(self) -> None:
        file = self.directory / "gobgpd.json"
        file.write_text(json.dumps(self.document()))
        self.start("gobgpd", ["gobgpd", "-t", "json", "-f", str(file), "--pprof-disable"])

    def document(self) -> dict[str, Any]:
        family = {4: "ipv4-unicast", 6: "ipv6-unicast"}
        neighbours = [
            {
                "config": {"neighbor-address": address, "peer-as": asn},
                "timers": {"config": {"hold-time": 3, "keepalive-interval": 1, "connect-retry": 1}},
                "ttl-security": {"config": {"enabled": True, "ttl-min": 255}},
                "afi-safis": [{"config": {"afi-safi-name": family[6 if ":" in address else 4]}}],
            }
            for address, asn in self.sessions_wanted().items()
        ]
        return {"global": {"config": {"as": self.asn, "router-id": self.address}}, "neighbors": neighbours}

    def gobgp(self, *words: str) -> Any:
        """Returns what its console answers; {} while the daemon does not answer yet."""
        done = self.run("gobgp", "-j", *words, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and "error" not in done.stdout[:20] else {}

    def states(self) -> dict[str, str]:
        """Returns which sessions are established, by the neighbour's address."""
        return {
            each["conf"]["neighbor_address"]: str(each["state"]["session_state"]) for each in self.gobgp("neighbor")
        }

    def sources(self, vip: str) -> set[str]:
        """Returns from whom it has a VIP."""
        family, bits = ("ipv6", 128) if ":" in vip else ("ipv4", 32)
        rib = self.gobgp("global", "rib", "-a", family)
        return {path["neighbor-ip"] for path in rib.get(f"{vip}/{bits}", [])}


class Triangle(Topo):  # type: ignore[misc]
    """Three routers of different make, and a Maglev on all of them."""

    def build(self) -> None:
        document = cluster(1, 1)
        first_router = {"address": "10.1.1.1", "weight": 1}  # a Maglev announces as long as an endpoint answers
        document["pools"]["web"] |= {"endpoints": [first_router], "health_check": {"type": "ping", "interval_s": 0.5}}
        for (name, asn), cls in zip(AS_OF.items(), (Router, FrrRouter, GoBgp), strict=True):
            self.addHost(name, cls=cls, asn=asn)
        self.addHost("m1", cls=Maglev, cluster=document, default_route="10.1.1.1", default_route6="fd00:1:1::1")
        for number, name in enumerate(AS_OF, 1):
            self._join(name, "m1", f"10.1.{number}", f"fd00:1:{number}:")
        for number, pair in enumerate((("r1", "r2"), ("r1", "r3"), ("r2", "r3")), 1):
            self._join(*pair, f"10.3.{number}", f"fd00:3:{number}:")

    def _join(self, near: str, far: str, network: str, network6: str) -> None:
        ends = [{"address": f"{network}.{end}/24", "address6": f"{network6}:{end}/64", "mtu": 1600} for end in (1, 2)]
        self.addLink(near, far, params1=ends[0], params2=ends[1])


@pytest.fixture(scope="module")
def routers():
    if shutil.which("gobgpd") is None or not (PROGRAMS / "bgpd").exists():
        pytest.skip("needs Debian's packages frr and gobgpd")
    site = Site.create("interop")
    net = Net(site, Triangle(), "python", lambda: None)
    try:
        net.build()
        yield {node.name: node for node in net.hosts}
    finally:
        for node in net.hosts:
            node.terminate()
        site.clean()


def ends(routers, name):
    """Returns the addresses of a router's neighbours on its links, by their names."""
    node = routers[name]
    found = {}
    for role in ("router", "maglev"):
        found |= {other.node.name: node.addresses_of(other) for _, other in node.neighbours(role)}
    return found


def has(routers, name, vip):
    """Returns from whom a router has a VIP."""
    names = {address: other for other, own in ends(routers, name).items() for address in own.values()}
    node = routers[name]
    found = node.sources(vip) if isinstance(node, GoBgp) else node.routing.ecmp().get(vip, ())
    return {names.get(address, address) for address in found}


def wait_for(routers, name, wanted):
    def missing():
        found = {vip: has(routers, name, vip) for vip in (VIP, VIP6)}
        return "" if all(each == wanted for each in found.values()) else f"{name} has {found}, not {wanted}"

    wait_until(missing, DEADLINE_S, f"{name}'s routes")


def test_every_pair_has_a_session_over_each_family(routers):
    def missing():
        lacking = [
            f"{name} with {other}: {state}"
            for name in ("r1", "r2")
            for other, state in routers[name].routing.sessions().items()
            if state != "Established"
        ]
        up = sum(state in ("6", "ESTABLISHED") for state in routers["r3"].states().values())
        return "; ".join(lacking) or ("" if up == 6 else f"r3: {routers['r3'].states()}")

    wait_until(missing, DEADLINE_S, "all sessions")


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_exabgp_is_heard_first_and_the_other_two_when_its_link_is_cut(routers, name):
    wait_for(routers, name, {"m1"})
    own = next(str(own) for own, _ in routers[name].neighbours("maglev"))
    routers[name].run("ip", "link", "set", own, "down")
    try:
        wait_for(routers, name, set(AS_OF) - {name})
    finally:
        routers[name].run("ip", "link", "set", own, "up")
    wait_for(routers, name, {"m1"})


def test_gobgp_has_the_vip_from_exabgp_bird_and_frr(routers):
    wait_for(routers, "r3", {"m1", "r1", "r2"})
