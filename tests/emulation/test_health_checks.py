"""Health checks against real servers that are then broken, and through the data path of endpoints that lose it."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import time
from collections import Counter
from pathlib import Path

import pytest
from breakable import HTTP_PORT, NAME, UDP_PORT
from settling import as_configured
from wires import VIP, VIP6, Tap, curl, statistics, status

from lab.nodes import project_python
from lab.waiting import wait_until
from maglev.engine.control import request

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=3)

TIMEOUT_S = 20.0
PACE = {"interval_s": 0.2, "timeout_s": 0.2, "rise": 2, "fall": 2}
ROUNDS = itertools.count(1)
PLAIN_PORT = 8081  # of a VIP whose pool is checked at the endpoints' own addresses
FEW = 60
MARGIN_S = 1.0  # for a machine that does other things too


@pytest.fixture
def broken(lab):
    """Runs servers that can be broken on every endpoint; gives what breaks them, by the endpoint's name."""
    files = {name: lab.node(name).directory / "faults" for name in lab.endpoints}
    for name, file in files.items():
        node = lab.node(name)
        file.write_text("{}")
        node.start(
            "breakable",
            [project_python(), str(Path(__file__).with_name("breakable.py")), str(file), node.address, VIP, VIP6],
        )

    def break_it(name, **faults):
        file = files[name]
        unfinished = file.with_suffix(".new")
        unfinished.write_text(json.dumps(faults))
        unfinished.replace(file)

    yield break_it
    for name in lab.endpoints:
        lab.node(name).stop_daemons(names=["breakable"])


@contextlib.contextmanager
def checked(lab, **method):
    """Has the pool `web` checked in another way, and waits until all its endpoints pass."""
    with as_configured(lab):
        lab.document["pools"]["web"]["health_check"] = PACE | method
        lab.reload()
        wait_known(lab)
        wait_healthy(lab, lab.endpoints)
        yield


def healthy(lab, maglev, pool="web"):
    names = {lab.node(name).address: name for name in lab.endpoints}
    return sorted(names[address] for address in status(lab, maglev)["pools"][pool]["healthy"])


def wait_healthy(lab, names, pool="web"):
    """Waits until every Maglev finds exactly these endpoints healthy; returns how long that took, in seconds."""
    start = time.monotonic()

    def missing():
        seen = {maglev: healthy(lab, maglev, pool) for maglev in lab.maglevs}
        return "" if all(found == sorted(names) for found in seen.values()) else f"healthy in {pool}: {seen}"

    wait_until(missing, TIMEOUT_S, f"{', '.join(names) or 'nobody'} healthy in {pool}")
    return time.monotonic() - start


def checks(lab, maglev, endpoint):
    """What a Maglev says of its checks of an endpoint."""
    address = lab.node(endpoint).address
    return [
        check for check in request(lab.node(maglev).control, "GET", "/health")["checks"] if check["endpoint"] == address
    ]


def wait_known(lab):
    """Waits until every Maglev has a first verdict of every endpoint; until then it goes by what it knew before."""

    def missing():
        unknown = [
            (maglev, endpoint)
            for maglev in lab.maglevs
            for endpoint in lab.endpoints
            for check in checks(lab, maglev, endpoint)
            if check["verdict"] == "unknown"
        ]
        return f"no verdict yet: {unknown}" if unknown else ""

    wait_until(missing, TIMEOUT_S, "first verdicts")


def wait_checks(lab, maglev, endpoint, expected):
    """Waits until a Maglev's checks of an endpoint are as expected: through which VIP, verdict, latest failure."""

    def missing():
        seen = {(c["through"], c["verdict"], c["latest_failure"]) for c in checks(lab, maglev, endpoint)}
        return "" if seen == expected else f"{maglev} says {seen}, expected {expected}"

    wait_until(missing, TIMEOUT_S, f"checks of {endpoint}")


def refuse(lab, name, packets):
    """Has an endpoint's kernel refuse packets, as when a server has gone."""
    rules = f"table inet broken {{ chain in {{ type filter hook input priority 0; {packets}; }}; }}"
    lab.node(name).run("nft", "-f", "-", text=rules)


def mend(lab, name, broken):
    broken(name)
    lab.run(name, "nft delete table inet broken")


# Each type, against a server that is then broken


def by_file(**faults):
    return lambda lab, broken: broken("s1", **faults)


def by_kernel(packets):
    return lambda lab, broken: refuse(lab, "s1", packets)


HTTP = {"type": "http", "port": HTTP_PORT, "status": [200, "300-302"], "body": "is well", "host": NAME}
CASES = {  # how it is checked, what breaks it, and what its Maglevs then say
    "http status": (HTTP, by_file(statuses=[503]), "HTTP status 503"),
    "http body": (HTTP, by_file(body="all is lost"), "the body does not hold 'is well'"),
    "tcp": (
        {"type": "tcp", "port": HTTP_PORT},
        by_kernel(f"tcp dport {HTTP_PORT} reject with tcp reset"),
        "Connection refused",
    ),
    "ping": (
        {"type": "ping"},
        by_kernel("icmp type echo-request drop; icmpv6 type echo-request drop"),
        "no answer within 0.2 s",
    ),
    "udp": (
        {"type": "udp", "port": UDP_PORT, "send": "hex:70696e67", "expect": "PING"},
        by_file(udp=True),
        "no answer within 0.2 s",
    ),
    "dns": ({"type": "dns", "query": NAME}, by_file(dns=True), "the name server answers REFUSED"),
}


@pytest.mark.parametrize("through", ["address", "vip"])
@pytest.mark.parametrize("case", CASES)
def test_a_server_that_breaks_is_found_and_one_that_is_mended_too(lab, broken, case, through):
    method, break_it, reason = CASES[case]
    with checked(lab, **method, through=through):
        try:
            break_it(lab, broken)
            wait_healthy(lab, ["s2", "s3"])
            vips = [VIP, VIP6] if through == "vip" else [None]
            for maglev in lab.maglevs:
                wait_checks(lab, maglev, "s1", {(vip, "unhealthy", reason) for vip in vips})
        finally:
            mend(lab, "s1", broken)
        wait_healthy(lab, lab.endpoints)


def test_a_script_that_fails_for_one_endpoint_leaves_that_one_out(lab, tmp_path):
    """The script runs on the Maglevs, and looks for a file that is named for the endpoint."""
    with checked(lab, type="script", command=["/bin/sh", "-c", f'test ! -e {tmp_path}/"$1"', "sh"]):
        fault = tmp_path / lab.node("s1").address
        fault.touch()
        wait_healthy(lab, ["s2", "s3"])
        assert [check["latest_failure"] for check in checks(lab, "m1", "s1")] == ["exit status 1"]
        fault.unlink()
        wait_healthy(lab, lab.endpoints)


# Rise and fall


def answers_of(lab, name, this_round):
    """How many answers each Maglev has had from an endpoint's HTTP server in a round."""
    lines = (lab.node(name).directory / "faults.log").read_text().splitlines()
    return Counter(line.split()[0] for line in lines if line.split()[3:] == [str(this_round)])


def go_through(lab, broken, statuses):
    """Has s1 answer with these statuses, the last for ever; returns when every Maglev has had them and three more."""
    this_round = next(ROUNDS)
    broken("s1", statuses=statuses, round=this_round)

    def missing():
        had = answers_of(lab, "s1", this_round)
        few = {name: had[lab.node(name).address] for name in lab.maglevs}
        return "" if min(few.values()) >= len(statuses) + 3 else f"answers of {len(statuses) + 3}: {few}"

    wait_until(missing, TIMEOUT_S, "answers")


def generations(lab):
    return {maglev: status(lab, maglev)["generation"] for maglev in lab.maglevs}


RISE_3_FALL_4 = [  # what s1 answers, how often its verdict changes (rise 3, fall 4), whether it is healthy at last
    ([503, 503, 503, 200], 0, True),
    ([503, 503, 503, 200, 503, 503, 503, 200], 0, True),
    ([503, 503, 503, 503, 200, 200, 503], 1, False),
    ([200, 200, 200, 503, 200], 1, True),
    ([503, 503, 503, 503, 200], 2, True),
]


def test_it_takes_fall_failures_and_rise_passes_in_a_row(lab, broken):
    with checked(lab, type="http", port=HTTP_PORT, rise=3, fall=4):
        go_through(lab, broken, [200])  # until all have told of their first verdicts: that makes a new table too
        for statuses, changes, is_healthy in RISE_3_FALL_4:
            before = generations(lab)
            go_through(lab, broken, statuses)
            wait_healthy(lab, lab.endpoints if is_healthy else ["s2", "s3"])
            after = generations(lab)
            seen = {maglev: after[maglev] - before[maglev] for maglev in after}
            assert set(seen.values()) == {changes}, f"{statuses}: expected {changes} new tables, there were {seen}"


# Through the data path


@contextlib.contextmanager
def both_ways(lab):
    """Has the VIP's endpoints checked through the data path in one pool, and at their own addresses in another."""
    check = PACE | {"type": "http", "port": 80, "path": "/healthz", "fall": 3}
    with as_configured(lab):
        pools = lab.document["pools"]
        pools["plain"] = {**copy.deepcopy(pools["web"]), "health_check": check}
        pools["web"]["health_check"] = check | {"through": "vip"}
        vip = {"name": "p", "address": VIP, "protocol": "tcp", "port": PLAIN_PORT, "pool": "plain"}
        lab.document["vips"].append(vip)
        lab.reload()
        wait_known(lab)
        for pool in ("web", "plain"):
            wait_healthy(lab, lab.endpoints, pool)
        yield


def lose_vip(lab):
    lab.run("s1", f"ip address del {VIP}/32 dev lo")
    return lambda: lab.run("s1", f"ip address add {VIP}/32 dev lo")


def stop_decapsulation(lab):
    """Has s1's kernel throw GRE away before anybody takes it, its daemon still running."""
    lab.node("s1").run("nft", "add table ip deaf; add chain ip deaf in { type filter hook prerouting priority -300; }")
    lab.node("s1").run("nft", "add rule ip deaf in ip protocol gre drop")
    return lambda: lab.run("s1", "nft delete table ip deaf")


@pytest.mark.parametrize("lose", [lose_vip, stop_decapsulation])
def test_an_endpoint_that_black_holes_its_share_is_found_through_the_data_path_only(lab, lose):
    with both_ways(lab):
        undo = lose(lab)
        try:
            took_s = wait_healthy(lab, ["s2", "s3"])
            configured_s = 3 * PACE["interval_s"] + PACE["timeout_s"]
            assert took_s < configured_s + MARGIN_S, f"expected within {configured_s:.1f} s, it took {took_s:.2f} s"
            said = {check["through"]: check["latest_failure"] for check in checks(lab, "m1", "s1")}
            assert said[VIP] == "no answer within 0.2 s"
            assert said[None] is None
            wait_healthy(lab, lab.endpoints, "plain")  # a plain check finds nothing wrong
            slots = request(lab.node("m1").control, "GET", "/tables")["web"]["slots"]
            assert lab.node("s1").address not in slots
            with lab.connections(FEW) as conns:
                conns.wait_settled()
                assert conns.broken == 0, conns.report()
                assert {connection.endpoint for connection in conns.all()} == {"s2", "s3"}
        finally:
            undo()
        wait_healthy(lab, lab.endpoints)


def test_an_endpoint_whose_decapsulation_is_killed_is_found_through_the_data_path(lab):
    with both_ways(lab):
        lab.kill("s1", "endpoint")
        wait_healthy(lab, ["s2", "s3"])
        wait_healthy(lab, lab.endpoints, "plain")
        lab.revive("s1")
        wait_healthy(lab, lab.endpoints)


def test_probes_reach_every_endpoint_as_clients_packets_do_and_are_no_clients(lab, broken):
    """They come in GRE, for the VIP, from the Maglev; what comes back to it counts neither as forwarded nor dropped."""
    with checked(lab, type="http", port=HTTP_PORT, through="vip"):
        before = {maglev: statistics(lab, maglev) for maglev in lab.maglevs}
        this_round = next(ROUNDS)
        with Tap(lab.node("s2")) as tap:
            for name in lab.endpoints:
                broken(name, round=this_round)
            for name in lab.endpoints:
                wait_until(
                    lambda name=name: "" if min(counts(lab, name, this_round)) > 5 else "few probes", TIMEOUT_S, name
                )
            frames = tap.seen()
        after = {maglev: statistics(lab, maglev) for maglev in lab.maglevs}
        for what in ("forwarded", "drops", "connections"):
            assert {m: after[m][what] for m in after} == {m: before[m][what] for m in before}, what
        plain = [
            f for f in frames if f.packet[9] == 6 and not f.is_own and not f.interface.startswith(("maglev", "lo"))
        ]
        assert not plain, "a probe through the data path came to s2 outside of GRE"
        log = (lab.node("s2").directory / "faults.log").read_text().splitlines()
        assert {line.split()[1] for line in log if line.endswith(f" {this_round}")} == {VIP, VIP6}
        name, _, _ = curl(lab, f"http://{VIP}/").partition(" ")
        assert name in lab.endpoints, "a client's packets should go on as ever"


def counts(lab, name, this_round):
    had = answers_of(lab, name, this_round)
    return [had[lab.node(maglev).address] for maglev in lab.maglevs]


# Flap damping


def test_an_endpoint_that_flaps_is_held_down_and_then_returns(lab, broken):
    damping = {"flap_changes": 4, "flap_window_s": 60.0, "hold_down_s": 3.0}
    with checked(lab, type="http", port=HTTP_PORT, rise=1, fall=1, **damping):
        go_through(lab, broken, [503, 200, 503, 200])
        held = {maglev: checks(lab, maglev, "s1")[0] for maglev in lab.maglevs}
        for maglev, check in held.items():
            assert 0 < check["held_down_for_s"] <= 3.0, f"{maglev}: {check}"
            assert (check["verdict"], check["latest_failure"]) == ("unhealthy", None), f"{maglev}: {check}"
            assert healthy(lab, maglev) == ["s2", "s3"]
        start = time.monotonic()
        wait_healthy(lab, lab.endpoints)
        least_s = min(check["held_down_for_s"] for check in held.values())
        assert time.monotonic() - start > least_s - 0.1, "it returned before the time for which it was to be held"
