"""What happens beside the packets: routes, configurations, health, the control socket."""

from __future__ import annotations

import contextlib
import copy
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections import Counter

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.utils import rdpcap
from wires import VIP, VIP6, Tap, curl, filtered_by_bird, status

from lab import observe
from lab.nodes import CONFIG, ROOT, write_config
from lab.waiting import wait_until
from maglev.engine.control import ControlError, request

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

FEW = 60
REQUESTS = 40
TIMEOUT_S = 20.0
NOBODY_LISTENS, DNS_PORT, BGP_PORT = 9, 53, 179
OUTSIDE, OUTSIDE_AS_BGP_SAYS_IT = "198.51.100.1", bytes([32, 198, 51, 100, 1])  # prefix length, prefix: RFC 4271 §4.3


@pytest.fixture
def edited(lab):
    """Returns a function that writes a configuration for Maglevs to read; at the end they get theirs back."""
    yield lambda document: write_config(lab.directory / CONFIG, document)
    lab.reload()
    lab.wait_converged()


def digest(lab, maglev):
    return status(lab, maglev)["pools"]["web"]["table_digest"]


def with_weight(document, endpoint, weight):
    """A configuration in which an endpoint has another weight."""
    changed = copy.deepcopy(document)
    changed["pools"]["web"]["endpoints"][endpoint]["weight"] = weight
    return changed


def reached_by(lab, count):
    """Who answers a number of new requests."""
    answers = curl(lab, f"'http://{VIP}/?[1-{count}]'", "-H", "'Connection: close'").splitlines()
    return Counter(answer.partition(" ")[0] for answer in answers)


# Routes


def test_every_session_is_established_and_every_maglev_is_a_next_hop(lab):
    view = lab.snapshot().routers["r1"]
    assert view.sessions == dict.fromkeys(lab.maglevs, "Established")
    assert view.ecmp == {
        vip: tuple(lab.node(maglev).addresses[version] for maglev in lab.maglevs)
        for version, vip in ((4, VIP), (6, VIP6))
    }


def test_the_router_takes_vips_and_nothing_else(lab, edited):
    router = lab.node("r1")
    before = {maglev: filtered_by_bird(router, maglev) for maglev in lab.maglevs}
    outside = {"name": "outside", "address": OUTSIDE, "protocol": "tcp", "port": 80, "pool": "web"}
    with Tap(router) as tap:
        edited({**lab.document, "vips": [*lab.document["vips"], outside]})
        for maglev in lab.maglevs:
            request(lab.node(maglev).control, "POST", "/reload")
        tap.wait_for(lambda frame: OUTSIDE_AS_BGP_SAYS_IT in frame.packet, f"an announcement of {OUTSIDE}", TIMEOUT_S)

    def missing():
        unfiltered = [maglev for maglev in lab.maglevs if filtered_by_bird(router, maglev) == before[maglev]]
        return f"nothing from {', '.join(unfiltered)} was refused" if unfiltered else ""

    wait_until(missing, TIMEOUT_S, "refusal of what is no VIP")
    assert list(observe.ecmp(router)) == [VIP, VIP6], "the router's kernel has a route to what is no VIP"
    assert OUTSIDE not in router.birdc("show", "route"), "BIRD has taken a route to what is no VIP"


# Configurations


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"forwarder": {"table_size": 65536}}, "forwarder.table_size", "65536"),
        ({"pools": {"web": {"endpoints": [{"address": "10.2.1.2", "weight": -1}]}}}, "weight", "-1"),
        (
            {"vips": [{"name": "www", "address": VIP, "protocol": "tcp", "port": 80, "pool": "nobody"}]},
            "pool",
            "nobody",
        ),
    ],
    ids=["table size no prime", "weight below 0", "pool that is not there"],
)
def test_a_bad_configuration_is_refused_by_field_and_value_and_changes_nothing(lab, edited, change, field, value):
    control = lab.node("m1").control
    with lab.connections(FEW) as conns:
        before = status(lab, "m1")
        edited({**lab.document, **change})
        with pytest.raises(ControlError) as refusal:
            request(control, "POST", "/reload")
        after = status(lab, "m1")
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    for word in (CONFIG, field, value, "allowed"):
        assert word in str(refusal.value), f"the refusal does not say {word!r}: {refusal.value}"
    assert after["config"].pop("refused") == str(refusal.value)
    del before["uptime_s"], after["uptime_s"], before["config"]["refused"]
    assert after == before, "a configuration that was refused has changed something"


def test_sighup_makes_the_file_count_again(lab):
    before = {maglev: digest(lab, maglev) for maglev in lab.maglevs}
    for maglev in ("m1", "m2"):
        lab.push(maglev, with_weight(lab.document, 0, 0))
        assert status(lab, maglev)["pools"]["web"]["drained"] == ["10.2.1.2"], "the test is void: nothing was pushed"
    os.kill(lab.node("m1").daemons["forwarder"].pid, signal.SIGHUP)
    wait_until(
        lambda: "" if digest(lab, "m1") == before["m1"] else "m1 has the pushed table", TIMEOUT_S, "reload on SIGHUP"
    )
    assert digest(lab, "m2") != before["m2"], "m2 got no signal, and has reloaded"
    lab.reload()


def test_sighup_with_a_bad_configuration_changes_nothing_and_says_why(lab, edited):
    node, before = lab.node("m1"), digest(lab, "m1")
    edited({**lab.document, "shard": ""})
    os.kill(node.daemons["forwarder"].pid, signal.SIGHUP)
    log = node.directory / "forwarder.log"
    wait_until(
        lambda: "" if "configuration kept as it was" in log.read_text() else "no word in the log", TIMEOUT_S, "refusal"
    )
    assert digest(lab, "m1") == before


def test_maglevs_agree_whatever_order_their_configurations_have(lab):
    before = digest(lab, "m1")
    document = with_weight(lab.document, 1, 3)  # another table, which shows that both have taken it
    shuffled = copy.deepcopy(document)
    shuffled["pools"]["web"]["endpoints"].reverse()
    shuffled["maglevs"].reverse()
    shuffled["vips"].reverse()
    lab.push("m1", document)
    lab.push("m2", shuffled)
    assert digest(lab, "m1") != before, "the test is void: m1 has not taken its configuration"
    assert digest(lab, "m2") == digest(lab, "m1"), "the order of entries changes the lookup table"
    lab.reload()


# The control socket


def test_only_root_may_open_a_control_socket(lab):
    nodes = [lab.node(name).control for name in (*lab.maglevs, *lab.endpoints)]
    for path in (*nodes, lab.directory / "nursery.sock"):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600, f"{path}: expected mode 0600, it is {stat.S_IMODE(mode):04o}"


def test_curl_on_a_maglev_shows_what_the_controller_sees(lab):
    done = lab.run("m1", f"curl -s --unix-socket {lab.node('m1').control} http://maglev/status")
    assert '"ready": true' in done.stdout, done.stdout


# Health


def test_an_endpoint_whose_server_died_is_left_out_by_all_maglevs_and_comes_back(lab):
    address = lab.node("s2").address
    assert reached_by(lab, REQUESTS)["s2"], "the test is void: s2 gets no requests when it is well"
    with lab.kill("s2", "servers"):
        lab.wait_converged()
        for maglev in lab.maglevs:
            assert status(lab, maglev)["pools"]["web"]["unhealthy"] == [address], f"on {maglev}"
        answered = reached_by(lab, REQUESTS)
        assert set(answered) == {"s1", "s3", "s4"}, f"requests went to {dict(answered)}"
    lab.wait_converged()
    answered = reached_by(lab, REQUESTS)
    assert answered["s2"], f"s2 is back and gets no requests: {dict(answered)}"


def test_packets_to_a_pool_without_a_healthy_endpoint_are_dropped_and_counted(lab, edited):
    """Of another pool the same endpoints are healthy: so the Maglevs do not take themselves for cut off."""
    changed = copy.deepcopy(lab.document)
    nobody = {"type": "tcp", "port": NOBODY_LISTENS, "interval_s": 0.2, "timeout_s": 0.2}
    changed["pools"]["nobody"] = copy.deepcopy(changed["pools"]["web"]) | {"health_check": nobody}
    next(vip for vip in changed["vips"] if vip["name"] == "www")["pool"] = "nobody"
    edited(changed)
    for maglev in lab.maglevs:
        request(lab.node(maglev).control, "POST", "/reload")

    def missing():
        pools = {maglev: status(lab, maglev)["pools"]["nobody"] for maglev in lab.maglevs}
        return "" if all(len(each["unhealthy"]) == len(lab.endpoints) for each in pools.values()) else str(pools)

    wait_until(missing, TIMEOUT_S, "a pool of which nobody is healthy")
    before = no_backend(lab)
    done = lab.run("c1", f"curl -s --max-time 1 http://{VIP}/")
    assert done.returncode == 28, f"expected silence (curl's 28), got exit status {done.returncode}"
    assert no_backend(lab) > before, "a packet without a healthy backend was not counted as no_backend"


def no_backend(lab):
    statistics = [observe.maglev_view(lab.node(name).control).statistics for name in lab.maglevs]
    return sum(each["drops"].get("no_backend", 0) for each in statistics)


def test_maglevs_that_no_endpoint_answers_withdraw_and_come_back(lab):
    """Each takes itself for cut off (`maglev.doubt`); so the router tells the client that there is no way."""
    with contextlib.ExitStack() as faults:
        for endpoint in lab.endpoints:
            faults.enter_context(lab.kill(endpoint, "servers"))
        wait_until(lambda: str(observe.ecmp(lab.node("r1")) or ""), TIMEOUT_S, "withdrawal")
        done = lab.run("c1", f"curl -s --max-time 1 http://{VIP}/")
        assert done.returncode == 7, f"expected no way (curl's 7), got exit status {done.returncode}"
    lab.wait_converged()
    assert reached_by(lab, 1)


# A machine whose name nobody knows


NAMELESS = """
import sys
from lab import Lab
with Lab("rack", maglevs=1, endpoints=1, clients=1, pcap=sys.argv[1]):
    pass
"""


def test_nobody_asks_a_name_server(tmp_path):
    """None is reached from within a lab: where the machine's name is in no file, a daemon would wait for seconds."""
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 192.0.2.200\n")
    alone = f"mount --bind {resolver} /etc/resolv.conf && hostname nowhere-known && exec"
    command = f"{alone} {shlex.join([sys.executable, '-c', NAMELESS, str(tmp_path / 'pcap')])}"
    subprocess.run(["unshare", "--mount", "--uts", "sh", "-c", command], cwd=ROOT, timeout=120, check=True)
    captures = list((tmp_path / "pcap").glob("*.pcap*"))
    packets = [packet for file in captures for packet in rdpcap(str(file))]
    assert any(TCP in packet and packet[TCP].dport == BGP_PORT for packet in packets), (
        "the test is void: nothing was seen"
    )
    assert [packet.summary() for packet in packets if UDP in packet and packet[UDP].dport == DNS_PORT] == []
