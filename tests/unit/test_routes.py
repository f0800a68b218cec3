"""Routes by our own netlink, held against what `ip route get` says."""

from __future__ import annotations

import json
import random
import subprocess
from ipaddress import IPv4Address, ip_network

from namespaces import ROUTER, SECOND_ROUTER, ip

from maglev.engine.routes import next_hops
from maglev.flow import pack_address


def by_iproute2(destinations):
    """The next hop to each destination as iproute2 tells it, one process for all."""
    questions = "\n".join(f"route get {destination}" for destination in destinations)
    done = subprocess.run(["ip", "-json", "-force", "-batch", "-"], input=questions, capture_output=True, text=True)
    routes = [json.loads(line)[0] for line in done.stdout.splitlines() if line.startswith("[{")]
    return {route["dst"]: route for route in routes}


def test_a_thousand_routes_are_those_that_iproute2_shows(in_namespace):
    dice = random.Random(3)
    destinations = [str(IPv4Address("10.0.0.0") + dice.randrange(1 << 24)) for _ in range(1000)]
    prefixes = sorted({f"10.{dice.randrange(256)}.0.0/16" for _ in range(100)})
    deep = sorted({f"{destination}/{dice.choice((24, 31, 32))}" for destination in destinations[:50]})

    def body(wires):
        for prefix in [*prefixes, *deep]:
            ip(f"route replace {ip_network(prefix, strict=False)} via {dice.choice((ROUTER, SECOND_ROUTER))}")
        expected = by_iproute2(destinations)
        assert 300 < len(expected) < 1000, "some should have a route and some none, or this test shows little"
        index = {link["ifname"]: link["ifindex"] for link in json.loads(ip("-json link show"))}
        wanted = {
            pack_address(address): (index[route["dev"]], route.get("gateway", address))
            for address, route in expected.items()
        }
        assert next_hops(map(pack_address, destinations)) == wanted

    in_namespace(body)


def test_both_families_and_a_gateway_of_the_other_one(in_namespace):
    def body(wires):
        for end in (wires.maglev, wires.second):
            ip(f"link set {end} addrgenmode none")
        ip(f"-6 address add fd00::2/64 dev {wires.maglev} nodad")
        ip("-6 route add fd01::/16 via fd00::1")
        ip(f"route add 10.7.0.0/16 via inet6 fd00::1 dev {wires.maglev}")
        index = json.loads(ip(f"-json link show {wires.maglev}"))[0]["ifindex"]
        hops = {"fd01::7": "fd00::1", "fd00::9": "fd00::9", "10.7.1.1": "fd00::1", ROUTER: ROUTER}
        asked = [pack_address(address) for address in [*hops, "fd02::1", "203.0.113.1"]]
        assert next_hops(asked) == {pack_address(address): (index, hop) for address, hop in hops.items()}

    in_namespace(body)


def test_nothing_asked_nothing_found():
    assert next_hops([]) == {}
