"""A rack whose router runs FRR: what it does, shows and survives is what BIRD does; ExaBGP is at the other ends."""

from __future__ import annotations

import pytest
from settling import expect_even_and_direct, settle
from wires import VIP, VIP6

from lab.frr import answer

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4, router="frr")

CONNECTIONS = 300
HOLD_TIME_S = 3.0
DEADLINE_S = 5.0


def hops(lab):
    return lab.snapshot().routers["r1"].ecmp


def test_it_spreads_both_families_over_all_maglevs(lab):
    assert hops(lab) == {
        VIP: ("10.1.1.2", "10.1.2.2", "10.1.3.2"),
        VIP6: ("fd00:1:1::2", "fd00:1:2::2", "fd00:1:3::2"),
    }
    assert lab.snapshot().routers["r1"].sessions == dict.fromkeys(lab.maglevs, "Established")


def test_flows_are_spread_evenly_and_answers_are_direct(lab):
    expect_even_and_direct(lab, CONNECTIONS)


@pytest.mark.parametrize("fault", ["kill", "power_off", "drain"])
def test_a_maglev_goes_and_comes_back_without_a_broken_connection(lab, fault):
    with lab.connections(CONNECTIONS) as conns:
        with getattr(lab, fault)("m1"):
            converged_s = settle(lab, conns)
            assert hops(lab)[VIP] == ("10.1.2.2", "10.1.3.2")
        settle(lab, conns)
    assert conns.broken == 0, conns.report()
    assert fault == "power_off" or converged_s < HOLD_TIME_S


def test_a_drained_endpoint_keeps_its_connections(lab):
    with lab.connections(CONNECTIONS) as conns, lab.drain("s4"):
        settle(lab, conns)
    assert conns.broken == 0, conns.report()


def test_a_session_is_reset_and_comes_back_and_an_operator_takes_a_next_hop_away(lab):
    router = lab.node("r1")
    before = router.sessions_with("m2")
    lab.reset_session("m2")
    lab.wait_converged()
    after = router.sessions_with("m2")
    assert [int(session[2]) for session in after] == [int(session[2]) + 1 for session in before]
    with lab.remove_next_hop("r1", "m2"):
        assert hops(lab)[VIP] == ("10.1.1.2", "10.1.3.2")
    lab.wait_converged()


def test_what_is_no_vip_is_not_let_in(lab):
    """The Maglev's own ExaBGP announces nothing else; so FRR is asked what its filter would do."""
    said = lab.node("r1").vtysh("show ip prefix-list vips4")
    assert "permit 192.0.2.0/24 le 32" in said
    assert "vips4" in lab.node("r1").vtysh("show bgp neighbors 10.1.1.2")


def test_its_console_is_at_hand(lab):
    done = lab.node("r1").run(*lab.node("r1").console_command(), "-c", "show bgp ipv4 unicast")
    assert f"{VIP}/32" in done.stdout
    assert "multipath" in lab.node("r1").vtysh(f"show bgp ipv4 unicast {VIP}/32")


def test_a_daemon_that_is_not_there_answers_nothing(tmp_path):
    assert answer(tmp_path / "bgpd.vty", "show bgp summary") == ""
