"""Faults in a running lab: that they happen, that they are noticed in time, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import copy
import time

import pytest
from wires import VIP, Tap, curl, interface_to, status

from lab import observe
from lab.errors import WrongUse
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

FEW = 60
WITHIN_S = 1.0  # a frozen forwarder is to be gone from the routers' kernels
HOLD_TIME_S = 3.0
TIMEOUT_S = 20.0


def hops(lab):
    return {hop for each in observe.ecmp(lab.node("r1")).values() for hop in each}


def seconds_until_withdrawn(lab, maglev, fault):
    own = set(lab.node(maglev).addresses.values())
    wait_until(lambda: "" if hops(lab).isdisjoint(own) else "a next hop is left", TIMEOUT_S, f"withdrawal of {maglev}")
    return lab.timeline.now_s - fault.event.at_s


# Frozen


@pytest.mark.parametrize("daemon", [None, "packets"], ids=["forwarder", "packet thread alone"])
def test_a_frozen_forwarder_is_withdrawn_within_a_second_and_breaks_no_connection(lab, daemon):
    with lab.connections(FEW) as conns:
        took = []
        for maglev in lab.maglevs:
            with lab.freeze(maglev, daemon) as fault:
                took.append(seconds_until_withdrawn(lab, maglev, fault))
                lab.wait_converged()
                assert lab.state_of(maglev) == "frozen"
                if daemon:
                    found = status(lab, maglev)
                    assert (found["ready"], found["stuck_packet_threads"]) == (False, [0])
            lab.wait_converged()
            conns.wait_settled()
        assert conns.broken == 0, conns.report()
    print(f"withdrawn after {', '.join(f'{s:.3f} s' for s in took)}")
    assert max(took) < WITHIN_S, f"withdrawn after {took} s"


def test_a_maglev_whose_speaker_is_frozen_goes_when_the_hold_timer_expires(lab):
    with lab.connections(FEW) as conns:
        with lab.freeze("m1", "exabgp") as fault:
            took = seconds_until_withdrawn(lab, "m1", fault)
            lab.wait_converged()
            conns.wait_settled()
        assert conns.broken == 0, conns.report()
    assert HOLD_TIME_S - 1.5 < took < HOLD_TIME_S + 1.0, f"withdrawn after {took:.2f} s: a keepalive comes every second"


def test_servers_that_were_frozen_for_a_moment_lose_no_connection(lab):
    with lab.connections(FEW) as conns:
        with lab.freeze("s1", "servers"):
            others = [connection.name for connection in conns.all() if connection.endpoint != "s1"]
            assert others, "the test is void: all connections are with s1"
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


@contextlib.contextmanager
def checked_through_the_vip(lab):
    """Has Maglevs check endpoints through the data path, at a pace of its own."""
    document = copy.deepcopy(lab.document)
    pace = {"interval_s": 0.2, "timeout_s": 0.2, "rise": 2, "fall": 3}
    document["pools"]["web"]["health_check"] |= {"through": "vip", **pace}
    before = lab.document
    lab._serve(document)
    lab.wait_converged()
    try:
        yield pace["fall"] * pace["interval_s"] + pace["timeout_s"]
    finally:
        lab._serve(before)
        lab.wait_converged()


def test_an_endpoint_that_swallows_packets_is_out_of_all_tables_within_its_configured_time(lab):
    address = lab.node("s2").address

    def missing():
        for maglev in lab.maglevs:
            if address in status(lab, maglev)["pools"]["web"]["healthy"]:  # of what the packets meet
                return f"s2 is in the table of {maglev}"
        return ""

    with checked_through_the_vip(lab) as configured_s:
        began = time.monotonic()
        with lab.freeze("s2", "endpoint") as fault:
            assert fault.effect.unhealthy == {"s2"}
            wait_until(missing, TIMEOUT_S, "the end of a black hole")
            took = time.monotonic() - began
            lab.wait_converged()
        lab.wait_converged()
    print(f"out of all tables after {took:.3f} s, configured are {configured_s:.1f} s")
    assert took < configured_s + 0.3, f"out after {took:.2f} s; configured are {configured_s:.2f} s"


def test_a_black_hole_that_no_check_looks_at_stays_in_the_tables(lab):
    with lab.freeze("s2", "endpoint") as fault:
        assert not fault.effect.unhealthy
        lab.wait_converged()
        assert lab.node("s2").address in status(lab, "m1")["pools"]["web"]["healthy"]


# Links


def test_a_link_that_is_down_is_seen_by_both_ends(lab):
    with lab.connections(FEW) as conns:
        with lab.link_down("m2-r1") as fault:
            assert fault.where == "r1-m2"
            lab.wait_converged()
            shown = lab.run("m2", f"ip -br link show {interface_to(lab.node('m2'), 'r1')}").stdout
            assert "NO-CARRIER" in shown, shown
            conns.wait_settled()
        lab.wait_converged()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


@pytest.mark.parametrize("dead_towards", ["c1", "r1"])
def test_a_one_way_link_carries_the_other_way(lab, dead_towards):
    other = {"c1": "r1", "r1": "c1"}[dead_towards]
    addresses = {"r1": "10.0.1.1", "c1": "10.0.1.2"}
    with (
        lab.one_way("r1-c1", dead_towards=dead_towards),
        Tap(lab.node(dead_towards)) as dead,
        Tap(lab.node(other)) as well,
    ):
        for sender, receiver in ((other, dead_towards), (dead_towards, other)):
            done = lab.run(sender, f"ping -c 2 -i 0.05 -W 0.3 {addresses[receiver]}")
            assert " 0 received" in done.stdout, done.stdout
        own = int.from_bytes(bytes(map(int, addresses[dead_towards].split("."))), "big").to_bytes(4, "big")
        assert any(
            frame.packet[12:16] == own and not frame.is_own for frame in well.seen() if frame.packet[:1] == b"\x45"
        )
        if dead_towards == "c1":  # a tap at the router's end sees frames before they are dropped there
            assert not [frame for frame in dead.seen() if not frame.is_own and frame.interface != "lo"]
    assert " 0% packet loss" in lab.run("c1", "ping -c 2 -i 0.05 10.0.1.1").stdout


# Routes and configurations


def test_a_session_that_is_reset_comes_back_and_breaks_no_connection(lab):
    with lab.connections(FEW) as conns:
        lab.reset_session("m3")
        lab.wait_converged()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


def test_a_next_hop_that_is_taken_away_is_given_back(lab):
    with lab.connections(FEW) as conns:
        lab.remove_next_hop("r1", "m1")
        assert lab.node("m1").address not in hops(lab)
        lab.wait_converged()
        assert status(lab, "m1")["ready"], "the Maglev itself is well"
        with pytest.raises(WrongUse, match="no next hop"):
            lab.remove_next_hop("r1", "m1")
        lab.add_next_hop("r1", "m1")
        lab.wait_converged()
        assert lab.node("m1").address in hops(lab)
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


def test_slow_health_checks_notice_late(lab):
    check = lab.document["pools"]["web"]["health_check"]
    with lab.slow_checks(3):
        lab.wait_converged()
        began = time.monotonic()
        with lab.freeze("s3"):
            lab.wait_converged()
            took = time.monotonic() - began
    lab.wait_converged()
    assert lab.document["pools"]["web"]["health_check"] == check
    usual_s = check["fall"] * check["interval_s"] + check["timeout_s"]
    assert took > 3 * (check["fall"] - 1) * check["interval_s"] > usual_s, f"noticed after {took:.2f} s"


def test_a_bad_configuration_is_refused_by_all_and_changes_nothing(lab):
    before = {maglev: status(lab, maglev)["generation"] for maglev in lab.maglevs}
    with lab.misconfigure() as everywhere:
        assert set(everywhere.detail["refusals"]) == set(lab.maglevs)
        lab.wait_converged()
    pushed = lab.misconfigure("m2", {"shard": ""})
    assert "shard" in pushed.detail["refusals"]["m2"]
    assert {maglev: status(lab, maglev)["generation"] for maglev in lab.maglevs} == before


def test_a_schedule_kills_and_revives_in_its_time(lab):
    plan = [(0.1, lambda lab: lab.kill("m2"), 0.5), (0.3, lambda lab: lab.link_down("r1-m1"), 0.6)]
    began = lab.timeline.now_s
    with lab.connections(FEW) as conns, lab.schedule(plan) as schedule:
        schedule.wait(TIMEOUT_S)
        lab.wait_converged()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    happened = [(e.kind, e.what) for e in lab.timeline if e.at_s > began and e.kind in ("fault", "undone")]
    assert happened == [("fault", "kill"), ("fault", "link down"), ("undone", "kill"), ("undone", "link down")]


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda lab: lab.freeze("c1"), "maglev or endpoint"),
        (lambda lab: lab.freeze("m1", "nginx"), "forwarder, exabgp"),
        (lambda lab: lab.link_down("r1-m9"), "r1-m1"),
        (lambda lab: lab.one_way("r1-m1", dead_towards="c1"), "m1 or r1"),
        (lambda lab: lab.impair("r1-m1", lost=5), "loss"),
        (lambda lab: lab.remove_next_hop("r2", "m1"), "r1"),
        (lambda lab: lab.slow_checks(0), "allowed"),
        (lambda lab: lab.thaw("m1"), "none"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_in_words(lab, do, words):
    with pytest.raises(WrongUse, match=words):
        do(lab)
    assert lab.faults == ()
    assert curl(lab, f"http://{VIP}/").startswith("s")
