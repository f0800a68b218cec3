"""What a lab shows of itself, and verdicts on it: true on a real rack, and false where a protection is off."""

from __future__ import annotations

import json
import time

import pytest
from scapy.layers.inet import IP, TCP
from settling import settle
from wires import VIP, put_on_wire

from lab import bird, netlink, observe, timeline, verify
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=5)

CONNECTIONS = 300
HOLD_TIME_S = 3.0
TIMEOUT_S = 10.0


def endpoint_addresses(lab, *names):
    return {address for name in names for address in lab.node(name).addresses.values()}


# What is seen


def test_the_kernel_says_what_ip_and_nft_say(lab):
    """The same routes and counters as the programs print, which are another reader of the same kernel."""
    router = lab.node("r1")
    lab.run("c1", f"curl -s http://{VIP}/")
    printed = json.loads(router.run("ip", "-j", "route", "show", "table", "all", "proto", "bird").stdout)
    listed = json.loads(router.run("nft", "-j", "list", "counters", "table", "inet", "maglab").stdout)["nftables"]
    hops = {r["dst"]: tuple(sorted(hop["gateway"] for hop in r["nexthops"])) for r in printed}
    counted = {each["counter"]["name"]: each["counter"]["packets"] for each in listed if "counter" in each}
    assert observe.ecmp(router) == hops
    assert len(hops) == 2, "one VIP of each family"
    assert netlink.counters(router.pid, "maglab") == counted
    assert sum(counted.values()) > 0, "the test is void: nothing was counted"


def test_a_next_hop_that_is_dead_is_none(lab):
    router = lab.node("r1")
    own = next(own for own, other in router.neighbours("maglev") if other.node.name == "m3")
    try:
        router.run("ip", "link", "set", str(own), "down")
        wait_until(
            lambda: "still there" if lab.node("m3").address in observe.ecmp(router)[VIP] else "", TIMEOUT_S, "dead hop"
        )
        assert len(observe.ecmp(router)[VIP]) == 2
    finally:
        router.run("ip", "link", "set", str(own), "up")
    lab.wait_converged()


def test_bird_says_the_same_with_and_without_its_console(lab):
    router = lab.node("r1")
    lines = bird.answer(router.directory / "bird.ctl", "show protocols").split("\n")
    console = router.birdc("show", "protocols").split("\n")
    assert [line.split()[:4] for line in lines if line.strip()] == [
        line.split()[:4] for line in console if line.strip() and not line.startswith("BIRD")
    ]


def test_a_snapshot_shows_everything(lab):
    with lab.connections(60) as conns:
        conns.wait_settled()
        seen = lab.snapshot(tables=True)
    assert set(seen.nodes) == {node.name for node in lab.net.hosts}
    assert all(usage.processes and usage.memory_bytes for usage in seen.nodes.values())
    assert seen.nodes["m1"].cpu_s > 0.1
    assert [c.fate for c in seen.connections] == ["alive"] * 60
    assert sum(seen.ecmp_flows().values()) >= 60
    assert seen.routers["r1"].sessions == dict.fromkeys(lab.maglevs, observe.ESTABLISHED)
    assert all({check["verdict"] for check in view.health["checks"]} == {"healthy"} for view in seen.maglevs.values())
    shares = seen.table_shares("web")
    assert set(shares) == set(lab.endpoints)
    assert sum(shares.values()) == pytest.approx(1)
    assert len(seen.maglevs["m1"].tables["web"]) == 65537


def test_a_recording_tells_the_run_and_costs_little(lab, tmp_path):
    file = tmp_path / "run.jsonl"
    with lab.connections(CONNECTIONS) as conns, lab.recording(interval_s=1.0, file=file) as recording:
        wait_until(lambda: "" if recording.looks >= 2 else "no looks yet", TIMEOUT_S, "a look")
        with lab.kill("m1"):
            settle(lab, conns)
            before = recording.looks
            wait_until(lambda: "" if recording.looks >= before + 2 else "none yet", TIMEOUT_S, "a look without m1")
        settle(lab, conns)
        wait_until(lambda: "" if recording.looks >= 6 else f"{recording.looks} looks", TIMEOUT_S, "six looks")
        recording.stop()
        assert recording.share_of_core < 0.05, f"looking takes {recording.share_of_core:.1%} of a core"
        lab.timeline.judged(verify.connections_persist(conns.all()))
    lab.timeline.copy_to(file)
    lab.report(tmp_path / "run.html")
    assert "kill m1" in (tmp_path / "run.html").read_text()
    told = timeline.read(file)
    faults = [event for event in told.events if event.kind in ("fault", "undone")]
    kinds = [(event.kind, event.what, event.where) for event in faults][-2:]
    assert kinds == [("fault", "kill", "m1"), ("undone", "kill", "m1")]
    assert told.verdicts[-1].holds, told.verdicts[-1]
    withdrawn, alike = verify.dead_withdrawn_within(told, 2.0), verify.alike_again_within(told, 5.0)
    assert withdrawn, withdrawn
    assert alike, alike
    assert told.about["lab"] == {
        "topology": "rack", "hash": "maglev", "connection_table": True, "maglevs": 3, "endpoints": 5,
    }  # fmt: skip
    last, hops = told.samples[-1].values, [sample.values["hops"][f"r1 {VIP}"] for sample in told.samples]
    assert last["connections"]["alive"] == CONNECTIONS
    assert ["m2", "m3"] in hops, f"no look saw that m1 was gone: {hops}"
    assert hops[-1] == ["m1", "m2", "m3"]
    used = [sample.values["cpu_s"]["m2"] for sample in told.samples]
    assert used == sorted(used), f"processor time fell: {used}"
    size = file.stat().st_size / len(told.samples)
    assert size < 4000, f"an hour at one sample a second would take {3600 * size / 1e6:.0f} MB"


# Verdicts, where all is well


def test_flows_are_spread_evenly_over_maglevs_and_by_the_tables_over_endpoints(lab):
    before = lab.snapshot(tables=True)
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        after = lab.snapshot()
        ecmp = verify.ecmp_balanced(before, after)
        endpoints = verify.endpoints_match_shares(verify.flows_by_endpoint(conns.all()), before.table_shares("web"))
        returned = verify.direct_server_return(after, before)
    assert ecmp, ecmp
    assert endpoints, endpoints
    assert returned, returned


def test_a_crash_is_withdrawn_at_once_and_kills_no_connection(lab):
    with lab.connections(CONNECTIONS) as conns:
        with lab.kill("m2"):
            withdrawn = verify.withdrawn_within(lab.snapshot, "m2", 1.0)
            settle(lab, conns)
        announced = verify.announced_within(lab.snapshot, "m2", TIMEOUT_S)
        settle(lab, conns)
        alike, persist = verify.maglevs_choose_alike(lab.snapshot()), verify.connections_persist(conns.all())
    assert withdrawn, withdrawn
    assert announced, announced
    assert alike, alike
    assert persist, persist


def test_a_dead_endpoint_takes_only_its_own_connections(lab):
    with lab.connections(CONNECTIONS) as conns:
        before = conns.all()
        lab.kill("s4")
        settle(lab, conns)
        after = conns.all()
    doomed = verify.only_the_doomed_died(after, {"s4"}, before)
    everybody = verify.connections_persist(after)
    assert doomed, doomed
    assert not everybody, "the test is void: s4 had no connection"
    assert all("with s4" in line or line.startswith("and ") for line in everybody.evidence), everybody


def test_a_reload_loses_no_packet(lab):
    before = lab.snapshot()
    with lab.connections(CONNECTIONS) as conns:
        for weight in (2, 1):
            lab.document["pools"]["web"]["endpoints"][0]["weight"] = weight
            lab.reload()
            conns.wait_settled()
    wait_until(lambda: dropped_since(lab, before), TIMEOUT_S, "every packet forwarded")


def dropped_since(lab, before):
    """Returns what was dropped, or is still on its way, in words."""
    verdict = verify.nothing_dropped(before, lab.snapshot())
    return "" if verdict else str(verdict)


# And where something is wrong


def test_a_maglev_that_drops_is_found(lab):
    vip = next(vip for vip in lab.document["vips"] if vip["name"] == "echo")
    vip["new_flows_per_s"] = 10.0
    lab.reload()
    before = lab.snapshot()
    try:
        with lab.connections(100):
            verdict = verify.nothing_dropped(before, lab.snapshot())
    finally:
        del vip["new_flows_per_s"]
        lab.reload()
    assert not verdict
    assert any("rate_limited" in line for line in verdict.evidence), verdict


def test_a_router_that_hashes_addresses_only_is_found(lab):
    """Two clients are two addresses: at most two of three Maglevs get anything."""
    router = lab.node("r1")
    before = lab.snapshot()
    try:
        router.set_sysctls({"net.ipv4.fib_multipath_hash_policy": "0"})
        with lab.connections(CONNECTIONS):
            verdict = verify.ecmp_balanced(before, lab.snapshot())
    finally:
        router.set_sysctls({"net.ipv4.fib_multipath_hash_policy": "3"})
    assert not verdict
    assert "never" in verdict.actual, verdict


def test_endpoints_with_other_weights_than_the_table_says_are_found(lab):
    before = lab.snapshot(tables=True)
    endpoint = lab.document["pools"]["web"]["endpoints"][0]
    endpoint["weight"] = 3
    lab.reload()
    try:
        with lab.connections(CONNECTIONS) as conns:
            flows = verify.flows_by_endpoint(conns.all())
            now = verify.endpoints_match_shares(flows, lab.snapshot(tables=True).table_shares("web"))
            then = verify.endpoints_match_shares(flows, before.table_shares("web"))
    finally:
        endpoint["weight"] = 1
        lab.reload()
    assert now, now
    assert not then, "three times the weight went unnoticed"


def test_a_maglev_with_another_configuration_is_found(lab):
    document = json.loads(json.dumps(lab.document))
    document["pools"]["web"]["endpoints"][0]["weight"] = 2
    lab.push("m2", document)
    try:
        verdict = verify.maglevs_choose_alike(lab.snapshot(tables=True))
    finally:
        lab.push("m2", lab.document)
    assert not verdict
    assert any("slots differ" in line for line in verdict.evidence), verdict
    assert verify.maglevs_choose_alike(lab.snapshot())


def test_an_answer_that_crosses_a_maglev_is_found(lab):
    before = lab.snapshot()
    lab.run("c1", f"curl -s http://{VIP}/")
    put_on_wire(lab, "m1", "r1", [bytes(IP(src=VIP, dst="10.0.1.2") / TCP(sport=80, dport=9, flags="A"))])
    crossed = lambda: verify.direct_server_return(lab.snapshot(), before)  # noqa: E731
    wait_until(lambda: "not counted" if crossed() else "", TIMEOUT_S, "the answer counted")
    assert crossed().evidence == ("r1-m1: 1 packets from VIPs",)


def test_a_withdrawal_that_waits_for_the_hold_timer_is_late(lab):
    with lab.power_off("m3"):
        began = time.monotonic()
        late = verify.withdrawn_within(lab.snapshot, "m3", 1.0)
        in_time = verify.withdrawn_within(lab.snapshot, "m3", 2 * HOLD_TIME_S)
    assert not late
    assert in_time, in_time
    assert time.monotonic() - began < 3 * HOLD_TIME_S + TIMEOUT_S
    assert any("still sends" in line for line in late.evidence), late


# Maglevs that remember nothing. Each of these needs a rack of its own: they come last.


def drained(lab):
    """Drains s5 under connections: returns verdicts on all of them, and on what theory allows."""
    members = verify.weights_of(lab.config, "web")
    theory = verify.change(members, {**members, lab.node("s5").address: 0.0})
    with lab.connections(CONNECTIONS) as conns:
        before = conns.all()
        lab.drain("s5")
        settle(lab, conns)
        after = conns.all()
    return verify.connections_persist(after), verify.disruption_within_theory(before, after, theory, leaving={"s5"})


@pytest.mark.topology("rack", maglevs=3, endpoints=5, connection_table=False)
def test_without_memory_maglev_hashing_disrupts_no_more_than_theory_says(lab):
    persist, theory = drained(lab)
    assert not persist, "the test is void: some table remembered flows"
    assert theory, theory


@pytest.mark.topology("rack", maglevs=3, endpoints=5, connection_table=False, hash="modulo")
def test_without_memory_modulo_hashing_disrupts_more(lab):
    persist, theory = drained(lab)
    assert not persist
    assert not theory, "modulo hashing passed for Maglev hashing"
