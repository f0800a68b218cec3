"""The rack behind an Open vSwitch whose control plane is a Ryu application: what holds on `rack` holds here.

Oracles: `ovs-ofctl` for what the switch has, nftables' counters on the Maglevs' links for what its buckets counted.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from commands import labs_of, read_until, started
from wires import VIP

from lab import observe, verify
from lab.errors import WrongUse
from lab.sdn_router import CONTROL, RYU_PYTHON
from lab.verify.statistics import SIGNIFICANCE, fit
from lab.waiting import wait_until

VIP6 = "2001:db8::1"
REROUTE_S = 1.0
TIMEOUT_S = 10.0

pytestmark = [
    pytest.mark.topology("sdn", maglevs=3, endpoints=4),
    pytest.mark.skipif(not RYU_PYTHON.exists(), reason="Ryu's environment is not there"),
]


def asked_of_switch(lab, *command):
    router = lab.node("r1")
    return router.run("ovs-ofctl", "-O", "OpenFlow15", *command, f"unix:{router.management}").stdout


def bucket_packets(lab, vip):
    """What each Maglev's bucket has counted, once the switch has added up what its datapath has."""
    router = lab.node("r1")
    router.run("ovs-appctl", "-t", f"{router.directory}/vswitchd.ctl", "revalidator/wait")
    return lab.snapshot().routers["r1"].buckets[vip]


def holds(verdict):
    assert verdict, str(verdict)


# What the switch has


def test_the_lab_reads_the_switch_as_its_own_tool_does(lab):
    lab.run("c1", f"curl -s http://{VIP}/ http://[{VIP6}]/")
    flows, groups = asked_of_switch(lab, "dump-flows"), asked_of_switch(lab, "dump-groups")
    found = re.findall(r"(?:nw_dst|ipv6_dst)=(\S+) actions=group:(\d+)", flows)
    buckets = {
        number: re.findall(r"bucket_id:(\d+).*?output:(\d+)", listed)
        for number, listed in re.findall(r"group_id=(\d+),(.*)", groups)
    }
    router = lab.node("r1")
    addresses = {str(port): router.addresses_of(other) for port, other in router._maglev_ports()}
    expected = {
        vip: tuple(sorted(addresses[port][6 if ":" in vip else 4] for _, port in buckets[number]))
        for vip, number in found
    }
    assert set(expected) == {VIP, VIP6}
    assert observe.ecmp(router) == expected
    assert all(number == port for each in buckets.values() for number, port in each), "a bucket has its port's number"
    assert groups.count("type=select,selection_method=hash,fields(ip_src,ip_dst,") == 2
    assert router.datapath in asked_of_datapath(lab)


def asked_of_datapath(lab):
    router = lab.node("r1")
    database = f"--db=unix:{router.directory}/ovsdb.sock"
    return router.run("ovs-vsctl", database, "get", "bridge", "br0", "datapath_type").stdout


def test_the_router_answers_for_itself(lab):
    """The kernel beside the switch: pings to every address, used-up hop limits, VIPs that nobody announces."""
    for address in ("10.0.1.1", "10.1.2.1", "fd00:0:1::1", "fd00:1:2::1"):
        assert lab.run("c1", f"ping -c1 -W2 {address}").returncode == 0, address
    for target in (VIP, VIP6, "10.2.1.2"):
        assert re.search("exceeded", lab.run("c1", f"ping -c1 -W2 -t1 {target}").stdout), target
    for target in ("192.0.2.77", "2001:db8::77", "10.9.9.9"):
        assert re.search("nreachable|No route", lab.run("c1", f"ping -c1 -W2 {target}").stdout), target


def test_what_is_too_big_for_the_next_link_is_told_or_cut(lab):
    """Links to clients take 1,500 bytes, those behind the router 1,600."""
    told = lab.run("s1", "ping -c1 -W2 -M do -s 1560 10.0.1.2").stdout
    assert "mtu = 1500" in told, told
    assert lab.run("s2", "ping -c1 -W2 -M dont -s 1560 10.0.1.2").returncode == 0
    assert lab.run("s2", "ping -6 -c2 -W2 -s 1540 fd00:0:1::2").stdout.count("bytes from") == 1, "the first is too big"


# The verdicts of the rack


def test_a_killed_maglev_breaks_none_of_300_connections(lab):
    before = lab.snapshot()
    with lab.connections(300) as conns:
        conns.wait_settled()
        holds(verify.ecmp_balanced(before, lab.snapshot()))
        with lab.kill("m1"):
            holds(verify.withdrawn_within(lab.snapshot, "m1", REROUTE_S))
            conns.wait_settled()
            lab.wait_converged()
        holds(verify.announced_within(lab.snapshot, "m1", TIMEOUT_S))
        lab.wait_converged()
        conns.wait_settled()
        holds(verify.connections_persist(conns.all()))
    after = lab.snapshot(tables=True)
    holds(verify.direct_server_return(after, before))
    holds(verify.maglevs_choose_alike(after))


def test_only_the_flows_of_a_dead_maglev_move(lab):
    """A bucket that goes takes nobody else's flows with it; back, it gets its own again."""
    with lab.connections(200) as conns, lab.ways() as record:
        before = record.wait(200)
        with lab.kill("m2"):
            lab.wait_converged()
            record.forget()
            without = record.wait(200)
        lab.wait_converged()
        record.forget()
        after = record.wait(200)
        assert conns.broken == 0, conns.report()
    doomed = {flow for flow, maglevs in before.items() if maglevs == {"m2"}}
    assert doomed, "the test is void: m2 had no flow"
    assert {flow for flow in before if before[flow] != without[flow]} == doomed
    assert after == before


def test_buckets_count_what_the_kernel_counts_and_share_it_evenly(lab):
    """One datagram a flow, so packets are flows, and chi-square may judge them."""
    flows = 600
    before, counted = bucket_packets(lab, VIP), lab.snapshot().routers["r1"].packets_to
    sent = lab.traffic.datagrams(flows=flows, rate_pps=flows, seconds=1)
    sent.wait(TIMEOUT_S)
    report = sent.report()
    holds(verify.nothing_lost(report))

    def missing():
        now, kernel = bucket_packets(lab, VIP), lab.snapshot().routers["r1"].packets_to
        each = {name: (now[name] - before[name], kernel[name] - counted[name]) for name in now}
        return "" if all(one == other for one, other in each.values()) else f"(bucket, kernel): {each}"

    wait_until(missing, TIMEOUT_S, "the same counts in the switch's buckets and the kernel")
    shares = {name: count - before[name] for name, count in bucket_packets(lab, VIP).items()}
    assert sum(shares.values()) == report.sent
    judged = fit(shares, dict.fromkeys(shares, 1 / 3))
    assert judged.tail > SIGNIFICANCE, f"{shares}: {judged}"


def test_a_drained_endpoint_gets_no_new_connection(lab):
    with lab.connections(60) as old:
        old.wait_settled()
        with lab.drain("s2"):
            lab.wait_converged()
            with lab.connections(60) as new:
                new.wait_settled()
                assert "s2" not in {connection.endpoint for connection in new.all()}
            old.wait_settled()
            holds(verify.connections_persist(old.all()))


# The controller


def test_a_controller_that_dies_and_returns_moves_no_flow(lab):
    with lab.connections(100) as conns, lab.ways() as record:
        steady = lab.traffic.datagrams(flows=50, first_port=20_000, rate_pps=400, seconds=6)  # no ports of TCP's
        before = record.wait(150)
        groups = asked_of_switch(lab, "dump-groups")
        with lab.kill_controller("r1"):
            assert lab.snapshot().routers["r1"].sessions["m1"] != observe.ESTABLISHED
            conns.wait_settled()
            assert asked_of_switch(lab, "dump-groups") == groups
        conns.wait_settled()
        steady.wait(2 * TIMEOUT_S)
        assert asked_of_switch(lab, "dump-groups") == groups
        assert {len(maglevs) for maglevs in record.ways().values()} == {1}, "a flow has been to two Maglevs"
        assert record.ways() == before
        holds(verify.nothing_lost(steady.report()))
        assert conns.broken == 0, conns.report()
    with lab.kill("m3"):
        holds(verify.withdrawn_within(lab.snapshot, "m3", REROUTE_S))


def test_a_maglev_that_goes_while_there_is_no_controller_is_given_up_by_the_next(lab):
    """It withdraws, and its sessions live: the new controller hears of it with its first words."""
    router, away = lab.node("r1"), set(lab.node("m2").addresses.values())
    with lab.kill_controller("r1"):
        fault = lab.kill("m2", "forwarder")
        assert all(not away.isdisjoint(hops) for hops in observe.ecmp(router).values()), "nobody should have noticed"
    lab.wait_converged()
    assert all(away.isdisjoint(hops) for hops in observe.ecmp(router).values())
    fault.undo()
    lab.wait_converged()


def test_a_switch_that_dies_and_returns_goes_on_as_before_and_counts_each_packet_once(lab):
    with lab.connections(60) as conns:
        with lab.kill("r1"):
            pass
        lab.wait_converged()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    before = sum(lab.snapshot().routers["r1"].packets_to.values())
    sent = lab.traffic.datagrams(flows=20, rate_pps=200, seconds=1).wait(TIMEOUT_S)
    assert sum(lab.snapshot().routers["r1"].packets_to.values()) - before == sent.sent


def test_sessions_can_be_reset_and_next_hops_removed(lab):
    with lab.connections(60) as conns:
        lab.reset_session("m1")
        lab.wait_converged()
        with lab.remove_next_hop("r1", "m2"):
            lab.wait_converged()
            assert lab.node("m2").address not in observe.ecmp(lab.node("r1"))[VIP]
            conns.wait_settled()
        lab.wait_converged()
        with lab.link_down("r1-m3"):
            lab.wait_converged()
            conns.wait_settled()
        lab.wait_converged()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


def test_links_can_be_bad_and_dead_one_way_as_elsewhere(lab):
    with lab.connections(60) as conns:
        with lab.one_way("r1-m1", dead_towards="r1"):
            lab.wait_converged()
            conns.wait_settled()
        lab.wait_converged()
        conns.wait_settled()
        holds(lab.explain(conns.all()))  # m1, back before its checks are, may break some
        with lab.one_way("r1-s2", dead_towards="r1"):
            lab.wait_converged()
        lab.wait_converged()
    with lab.impair("r1-s3", delay_ms=40):
        assert 80 <= ping_ms(lab, "s3") < 200, "both directions take 40 ms more"
    directions = 2 if lab.node("r1").datapath == "system" else 1
    with lab.impair("r1-m1", delay_ms=40) as fault:
        assert fault.detail["towards"] == (None if directions == 2 else "m1")
        assert directions * 40 <= ping_ms(lab, "m1") < (directions + 1) * 40
    assert ping_ms(lab, "m1") < 40
    if directions == 2:
        with lab.impair("r1-m1", towards="r1", delay_ms=40):
            assert 40 <= ping_ms(lab, "m1") < 80
    else:
        with pytest.raises(WrongUse, match="takes frames before"):
            lab.impair("r1-m1", towards="r1", delay_ms=5)
    with pytest.raises(WrongUse, match="hashes each fragment"):
        lab.spray_fragments("r1")


def ping_ms(lab, name):
    """The shortest time there and back of three, from the client."""
    said = lab.run("c1", f"ping -c3 -i 0.2 -W2 {lab.node(name).address}").stdout
    return float(re.search(r"= ([\d.]+)/", said)[1])


def test_a_controller_that_is_asked_nonsense_says_so_and_lives(lab):
    path = lab.node("r1").directory / CONTROL
    answer = lab.run("r1", f"curl -s --unix-socket {path} -X POST 'http://r1/restart?peer=10.99.9.9'").stdout
    assert "10.99.9.9" in answer
    with pytest.raises(WrongUse, match="there is no router 'm1'"):
        lab.kill_controller("m1")


@pytest.mark.topology("sdn", maglevs=1, endpoints=1, clients=1, bgp_password="Zwei+Drei=5")
def test_sessions_can_be_signed(lab):
    """The lab has converged, so sessions are up; what is not signed is not heard."""
    (port,) = [str(own) for own, _ in lab.node("r1").neighbours("maglev")]
    seen = lab.run("r1", f"timeout 10 tcpdump -c 4 -lnvi {port} tcp port 179").stdout
    assert seen.count("md5") == 4, seen
    for router in ("10.1.1.1", "[fd00:1:1::1]"):
        assert lab.run("m1", f"curl -s --connect-timeout 1 telnet://{router}:179").returncode == 28, (
            "it should time out"
        )


def test_it_runs_under_plain_mininet():
    topology = "sdn,maglevs=1,endpoints=1,clients=1"
    with started(["mn", "--custom", "topologies/sdn.py", "--topo", topology], stderr=subprocess.STDOUT) as console:
        read_until(console, "Starting CLI")
        retry = "--retry 40 --retry-delay 1 --retry-all-errors --connect-timeout 1"
        answer, _ = console.communicate(f"c1 curl -s {retry} http://{VIP}/\nexit\n", timeout=120)
    assert console.returncode == 0, answer
    assert re.findall(r"s\d answers", answer) == ["s1 answers"], answer


# Where it cannot run


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (
            'r.RYU_PYTHON = r.ROOT / "nowhere" / "bin" / "python"',
            "Ryu's environment nowhere is not there: run make setup",
        ),
        ('r.PATH = "/nowhere"', "Open vSwitch's ovsdb-tool is not installed: run make setup"),
        ('r.SCHEMA = r.Path("/nowhere/schema")', "/nowhere/schema"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence_and_nothing_is_left(spoilt, said):
    code = f"import sys, lab.sdn_router as r; {spoilt}; from lab.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--topology", "sdn"]
    with started(command) as demo:
        _, complaint = demo.communicate(timeout=60)
    assert demo.returncode == 2, complaint
    assert said in " ".join(complaint.split())
    assert "Traceback" not in complaint
    assert labs_of(demo.pid) == []
