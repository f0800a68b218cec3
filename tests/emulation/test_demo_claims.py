"""What the demo claims, one by one, on a rack: who dies, who must not, and who notices how."""

from __future__ import annotations

import pytest
from settling import settle
from wires import hops

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=5)

CONNECTIONS = 300
FRESH = 100
HOLD_TIME_S = 3.0  # whoever notices a crash sooner did not wait for BGP's hold timer
NOTICE_TIMEOUT_S = 20.0


def names_on(conns, endpoint):
    return {connection.name for connection in conns.all() if connection.endpoint == endpoint}


def broken_names(conns):
    return {connection.name for connection in conns.all() if connection.is_broken}


def packets_to(lab, maglev):
    return lab.snapshot().ecmp_packets()[maglev]


def test_a_killed_maglev_breaks_no_connection_and_is_noticed_without_the_hold_timer(lab):
    with lab.connections(CONNECTIONS) as conns:
        lab.kill("m1")
        converged_s = settle(lab, conns)
        assert conns.broken == 0, conns.report()
    assert lab.node("m1").address not in hops(lab)
    assert converged_s < HOLD_TIME_S, "the router waited for the hold timer instead of noticing the closed session"


def test_a_revived_maglev_breaks_no_connection_and_takes_packets_again(lab):
    with lab.connections(CONNECTIONS) as conns:
        lab.kill("m1")
        settle(lab, conns)
        before = packets_to(lab, "m1")
        lab.revive("m1")
        settle(lab, conns)
        assert conns.broken == 0, conns.report()
        assert packets_to(lab, "m1") > before, "the router sends nothing to the revived Maglev"


def test_a_maglev_without_power_breaks_no_connection(lab):
    with lab.connections(CONNECTIONS) as conns:
        lab.power_off("m3")
        converged_s = settle(lab, conns)
        assert conns.broken == 0, conns.report()
    assert converged_s < 2 * HOLD_TIME_S, "the hold timer of 3 s did not end the session"


def test_a_drained_maglev_breaks_no_connection_and_stops_only_when_no_packet_comes(lab):
    before = packets_to(lab, "m2")
    with lab.connections(CONNECTIONS) as conns:
        lab.drain("m2")
        settled_at = packets_to(lab, "m2")
        settle(lab, conns)
        assert conns.broken == 0, conns.report()
        assert settled_at > before, "the test is void: no connection ever went through m2"
        assert packets_to(lab, "m2") == settled_at, "the router still sends to a drained Maglev"


def test_a_drained_endpoint_keeps_its_connections_and_gets_no_new_one(lab):
    with lab.connections(CONNECTIONS) as conns:
        old = names_on(conns, "s5")
        lab.drain("s5")
        settle(lab, conns)
        assert conns.broken == 0, conns.report()
        assert old, "the test is void: s5 never had a connection"
        with lab.connections(FRESH) as fresh:
            assert not names_on(fresh, "s5"), "new connections reached a drained endpoint"
            assert fresh.broken == 0, fresh.report()
        assert conns.broken == 0, conns.report()


@pytest.mark.parametrize("fault", ["kill", "power_off"])
def test_a_dead_endpoint_takes_exactly_its_own_connections_with_it(lab, fault):
    with lab.connections(CONNECTIONS) as conns:
        own = names_on(conns, "s4")
        getattr(lab, fault)("s4")
        settle(lab, conns)
        assert own, "the test is void: s4 never had a connection"
        assert broken_names(conns) == own, f"expected the connections of s4 and no others to break: {conns.report()}"


def test_a_dead_forwarder_makes_the_controller_withdraw_although_bgp_stays_up(lab):
    with lab.connections(CONNECTIONS) as conns:
        lab.kill("m1", "forwarder")
        settle(lab, conns)
        assert conns.broken == 0, conns.report()
    session = lab.snapshot().routers["r1"].sessions["m1"]
    assert session == "Established", f"expected the session to stay Established, it is {session}"
    assert lab.node("m1").address not in hops(lab)


@pytest.mark.parametrize("end", ["m1", "r1"])
def test_a_dead_link_is_noticed_without_the_hold_timer_and_comes_back(lab, end):
    maglev = lab.node("m1")
    (own, theirs), node = maglev.neighbours("router")[0], lab.node(end)
    interface = own if end == "m1" else theirs

    def is_hop():
        return maglev.address in hops(lab)

    with lab.connections(CONNECTIONS) as conns:
        try:
            node.run("ip", "link", "set", str(interface), "down")
            noticed_s = wait_until(lambda: "r1 still sends to m1" if is_hop() else "", NOTICE_TIMEOUT_S, "withdrawal")
            conns.wait_settled()
            assert conns.broken == 0, conns.report()
        finally:
            node.run("ip", "link", "set", str(interface), "up")
            if end == "m1":  # a link's routes go with it
                for gateway in maglev.addresses_of(theirs).values():
                    node.run("ip", "route", "replace", "default", "via", gateway)
        wait_until(lambda: "" if is_hop() else "r1 does not send to m1", NOTICE_TIMEOUT_S, "announcement")
        settle(lab, conns)
        assert conns.broken == 0, conns.report()
    assert noticed_s < HOLD_TIME_S, "the router waited for the hold timer instead of noticing the dead link"


# What Maglev saves one from. Each of these needs a rack of its own: they come last.


@pytest.mark.topology("rack", maglevs=3, endpoints=5, hash="modulo", connection_table=False)
def test_modulo_hashing_without_a_table_breaks_over_a_third_when_an_endpoint_is_drained(lab):
    with lab.connections(CONNECTIONS) as conns:
        lab.drain("s5")
        settle(lab, conns)
        assert conns.broken > CONNECTIONS / 3, f"expected over {CONNECTIONS // 3} to break: {conns.report()}"


@pytest.mark.topology("rack", maglevs=3, endpoints=5, connection_table=False)
def test_maglev_hashing_without_a_table_breaks_little_more_than_the_drained_endpoints_own(lab):
    with lab.connections(CONNECTIONS) as conns:
        own = names_on(conns, "s5")
        lab.drain("s5")
        settle(lab, conns)
        others = broken_names(conns) - own
        assert own <= broken_names(conns), f"the test is void: some table remembered flows: {conns.report()}"
        assert len(others) < CONNECTIONS / 10, f"{len(others)} connections of other endpoints broke: {conns.report()}"
