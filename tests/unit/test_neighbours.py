"""Next hops on real interfaces: what the kernel knows of routes and neighbours, followed."""

from __future__ import annotations

import subprocess
import time

import pytest
from namespaces import DEADLINE_S, ENDPOINT, OTHER_ENDPOINT, ROUTER, SECOND_ROUTER, ip

from maglev.engine import neighbours as neighbours_module
from maglev.engine.neighbours import Neighbours
from maglev.flow import pack_address


@pytest.fixture
def by_events_alone(monkeypatch):
    """Takes away the refresh that would cover up a change which nobody announced."""
    monkeypatch.setattr("maglev.engine.neighbours.REFRESH_S", 3600.0)


def neighbours(*endpoints):
    """Next hops that are being followed, in a thread that ends with the tests."""
    subject = Neighbours()
    subject.start()
    subject.set_targets(pack_address(address) for address in endpoints)
    return subject


def expect_hop(subject, endpoint, header, why):
    """Waits until the next hop to an endpoint is `header`."""
    until = time.monotonic() + DEADLINE_S
    while (found := subject.next_hop(pack_address(endpoint))) != header and time.monotonic() < until:
        time.sleep(0.01)
    shown = [each.hex(" ") if each else "none" for each in (header, found)]
    assert found == header, f"{why}: the next hop to {endpoint} should have become {shown[0]}, but is {shown[1]}"


def test_next_hops_are_found_behind_a_gateway_and_on_the_link(in_namespace):
    def body(wires):
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        first, second = wires.headers()
        subject = neighbours(ENDPOINT, SECOND_ROUTER)
        expect_hop(subject, ENDPOINT, first, "an endpoint behind the router, whom nobody has talked to")
        expect_hop(subject, SECOND_ROUTER, second, "an endpoint on the second link")
        unknown = subject.next_hop(pack_address(OTHER_ENDPOINT))
        assert unknown is None, f"nobody asked for {OTHER_ENDPOINT}, but there is {unknown}"
        subject.set_targets([pack_address(OTHER_ENDPOINT)])
        expect_hop(subject, OTHER_ENDPOINT, first, "an endpoint that is asked for later")
        expect_hop(subject, ENDPOINT, None, "an endpoint that is no longer asked for")

    in_namespace(body)


def test_next_hops_follow_a_link_address(in_namespace, by_events_alone):
    def body(wires):
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        before, _ = wires.headers()
        subject = neighbours(ENDPOINT)
        expect_hop(subject, ENDPOINT, before, "at the start")
        wires.next_door(ip, f"link set {wires.router} address 02:00:00:00:00:99")
        assert wires.headers()[0].startswith(b"\x02\0\0\0\0\x99"), "the router should have a new address"
        expect_hop(subject, ENDPOINT, wires.headers()[0], "when the router's link address has changed")
        ip(f"link set {wires.maglev} address 02:00:00:00:00:77")
        assert wires.headers()[0][6:12] == b"\x02\0\0\0\0\x77", "the Maglev should have a new address"
        expect_hop(subject, ENDPOINT, wires.headers()[0], "when the Maglev's own link address has changed")

    in_namespace(body)


def test_next_hops_follow_routes(in_namespace, by_events_alone):
    def body(wires):
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        first, second = wires.headers()
        subject = neighbours(ENDPOINT, OTHER_ENDPOINT)
        expect_hop(subject, ENDPOINT, first, "at the start")
        ip(f"route replace 10.2.0.0/16 via {SECOND_ROUTER}")
        expect_hop(subject, ENDPOINT, second, "when another gateway is in charge")
        expect_hop(subject, OTHER_ENDPOINT, second, "and so for the other endpoint")
        ip(f"route add {ENDPOINT}/32 via {ROUTER}")
        expect_hop(subject, ENDPOINT, first, "when a longer prefix leads elsewhere")
        expect_hop(subject, OTHER_ENDPOINT, second, "which does not concern the other endpoint")
        ip("route del 10.2.0.0/16")
        expect_hop(subject, OTHER_ENDPOINT, None, "when its route has vanished")
        expect_hop(subject, ENDPOINT, first, "whose own route is still there")
        ip(f"link set {wires.maglev} down")
        expect_hop(subject, ENDPOINT, None, "when its link is down")
        ip(f"link set {wires.maglev} up")
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        expect_hop(subject, OTHER_ENDPOINT, first, "when link and route are back")

    in_namespace(body)


def test_next_hops_follow_rules_and_next_hop_objects(in_namespace, by_events_alone):
    def body(wires):
        ip(f"nexthop add id 1 via {ROUTER} dev {wires.maglev}")
        ip("route add 10.2.0.0/16 nhid 1")
        ip(f"route add 10.2.0.0/16 via {SECOND_ROUTER} table 100")
        first, second = wires.headers()
        subject = neighbours(ENDPOINT)
        expect_hop(subject, ENDPOINT, first, "at the start")
        ip("rule add to 10.2.0.0/16 table 100")
        expect_hop(subject, ENDPOINT, second, "when a rule leads to another table")
        ip("rule del to 10.2.0.0/16 table 100")
        expect_hop(subject, ENDPOINT, first, "when the rule is gone")
        ip(f"nexthop replace id 1 via {SECOND_ROUTER} dev {wires.second}")
        expect_hop(subject, ENDPOINT, second, "when the next hop that the route names is another")

    in_namespace(body)


def test_routes_are_asked_for_when_they_may_have_changed_and_not_all_the_time(in_namespace, monkeypatch):
    asked, ask = [], neighbours_module.next_hops
    used, use = [], neighbours_module._use
    monkeypatch.setattr(neighbours_module, "REFRESH_S", 0.01)
    monkeypatch.setattr(neighbours_module, "next_hops", lambda targets: asked.append(1) or ask(targets))
    monkeypatch.setattr(neighbours_module, "_use", lambda *hop: used.append(1) or use(*hop))

    def body(wires):
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        subject = neighbours(ENDPOINT)
        expect_hop(subject, ENDPOINT, wires.headers()[0], "at the start")
        until = time.monotonic() + DEADLINE_S
        while len(used) < 50 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(used) >= 50, "the next hop should be called to mind again and again"
        assert len(asked) < 10, f"with nothing changed its route was asked for {len(asked)} times"

    in_namespace(body)


def test_a_router_that_does_not_answer_is_no_next_hop(in_namespace):
    def body(wires):
        ip("route add 10.2.0.0/16 via 10.1.1.77")
        first, _ = wires.headers()
        subject = neighbours(ENDPOINT)
        ip(f"neighbour replace 10.1.1.77 lladdr 02:00:00:00:00:55 dev {wires.maglev}")
        expect_hop(subject, ENDPOINT, b"\x02\0\0\0\0\x55" + first[6:], "when somebody says where it is")
        ip(f"neighbour del 10.1.1.77 dev {wires.maglev}")
        expect_hop(subject, ENDPOINT, None, "when nobody knows any more")

    in_namespace(body)


def test_more_changes_than_can_be_heard_are_looked_up_instead(in_namespace, by_events_alone, monkeypatch):
    """The kernel throws events away that nobody takes in time; the last change of all must not be among the lost."""
    looks, look = [], Neighbours._read_all
    monkeypatch.setattr(Neighbours, "_read_all", lambda self, queries: looks.append(1) or look(self, queries))

    def body(wires):
        ip("route add 10.2.0.0/16 via 10.1.1.77")
        own = wires.headers()[0][6:]
        subject = neighbours(ENDPOINT)
        changes = [
            f"neighbour replace 10.1.1.{host} lladdr 02:00:00:00:{round_:02x}:{host:02x} dev {wires.maglev}"
            for round_ in range(100)
            for host in range(3, 253)
        ]
        done = subprocess.run(
            ["ip", "-batch", "-"], input="\n".join(changes), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        last = bytes([2, 0, 0, 0, 99, 77])
        expect_hop(subject, ENDPOINT, last + own, f"after {len(changes)} changes")
        assert len(looks) > 1, "the events should have been too many, or this test shows nothing"

    in_namespace(body)


# IPv6


def test_next_hops_of_ipv6_are_found_by_ndp_and_follow_link_addresses(in_namespace):
    def body(wires):
        first, second = wires.with_ipv6()
        ip("-6 route add fd00:2::/32 via fd00:1:1::1")
        subject = neighbours("fd00:2:1::2", "fd00:1:9::1", ENDPOINT)
        expect_hop(subject, "fd00:2:1::2", first, "an endpoint behind the router, whom nobody has talked to")
        expect_hop(subject, "fd00:1:9::1", second, "an endpoint on the second link")
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        expect_hop(subject, ENDPOINT, wires.headers()[0], "an endpoint of IPv4 beside them")
        wires.next_door(ip, f"link set {wires.router} address 02:00:00:00:00:99")
        header = wires.headers()[0][:12] + b"\x86\xdd"
        assert header != first, "the router should have a new address"
        ip(f"-6 neighbour replace fd00:1:1::1 lladdr 02:00:00:00:00:99 dev {wires.maglev}")
        expect_hop(subject, "fd00:2:1::2", header, "when the router's link address has changed")

    in_namespace(body)


def test_next_hops_of_ipv6_follow_routes_rules_and_addresses(in_namespace, by_events_alone):
    def body(wires):
        first, second = wires.with_ipv6()
        ip("-6 route add fd00:2::/32 via fd00:1:1::1")
        ip("-6 route add fd00:2::/32 via fd00:1:9::1 table 100")
        subject = neighbours("fd00:2:1::2", "fd00:3::7")
        expect_hop(subject, "fd00:2:1::2", first, "at the start")
        ip("-6 rule add to fd00:2::/32 table 100")
        expect_hop(subject, "fd00:2:1::2", second, "when a rule leads to another table")
        ip("-6 rule del to fd00:2::/32 table 100")
        expect_hop(subject, "fd00:2:1::2", first, "when the rule is gone")
        ip("-6 route replace fd00:2::/32 via fd00:1:9::1")
        expect_hop(subject, "fd00:2:1::2", second, "when another gateway is in charge")
        wires.next_door(ip, f"-6 address add fd00:3::7/64 dev {wires.second_router} nodad")
        ip(f"-6 address add fd00:3::2/64 dev {wires.second} nodad")
        expect_hop(subject, "fd00:3::7", second, "when an address has made its network a neighbour")
        ip("-6 route del fd00:2::/32")
        expect_hop(subject, "fd00:2:1::2", None, "when its route has vanished")

    in_namespace(body)


def test_next_hops_may_be_of_one_link_only_or_of_the_other_family(in_namespace):
    def body(wires):
        first, second = wires.with_ipv6()
        for interface in (wires.maglev, wires.second):
            ip(f"-6 neighbour add fe80::77 lladdr 02:00:00:00:00:0{interface[-1]} dev {interface}")
        ip(f"-6 route add fd00:2:1::/64 via fe80::77 dev {wires.maglev}")
        ip(f"-6 route add fd00:2:2::/64 via fe80::77 dev {wires.second}")
        ip(f"route add 10.2.0.0/16 via inet6 fe80::77 dev {wires.second}")
        subject = neighbours("fd00:2:1::2", "fd00:2:2::2", ENDPOINT)
        expect_hop(subject, "fd00:2:1::2", b"\2\0\0\0\0\0" + first[6:], "a link-local gateway on the first link")
        expect_hop(subject, "fd00:2:2::2", b"\2\0\0\0\0\1" + second[6:], "its namesake on the second link")
        expect_hop(subject, ENDPOINT, b"\2\0\0\0\0\1" + second[6:12] + b"\x08\0", "IPv4 behind a gateway of IPv6")

    in_namespace(body)
