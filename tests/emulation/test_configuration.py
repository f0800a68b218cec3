"""Configurations that change while everything runs: watched, pushed, refused, differing; and draining."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from settling import as_configured
from wires import VIP, Tap, interface_to, put_on_wire, statistics, status

from lab import observe
from lab.nodes import CONFIG, write_config
from lab.waiting import wait_until
from maglev import config
from maglev.config_diff import diff, in_words
from maglev.engine.control import ControlError, request
from maglev.engine.watch import QUIET_S

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

FEW = 60
HELD = 500
RELOADS = 50
RATE_PPS, FLOWS = 10_000, 200  # of each of two clients
FLOOD_S = 300.0  # at most
TIMEOUT_S = 20.0
SINK_PORT = 9
SINK = """table ip sink {
    counter sunk {}
    chain in { type filter hook input priority 0; ip protocol 47 @nh,264,8 17 counter name sunk drop; }
}"""  # GRE whose inner packet is UDP: its protocol stands at byte 20 + 4 + 9


@pytest.fixture
def served_again(lab) -> Iterator[None]:
    """Lets the lab's own configuration count again after the test."""
    with as_configured(lab):
        yield
    lab.wait_converged()


def with_weight(document, endpoint, weight):
    changed = copy.deepcopy(document)
    changed["pools"]["web"]["endpoints"][endpoint]["weight"] = weight
    return changed


def serves(lab, maglev, document):
    """What still differs between what a Maglev serves and a document, in words."""
    served = request(lab.node(maglev).control, "GET", "/config")
    return "; ".join(in_words(diff(config.parse(json.dumps(served)), config.parse(json.dumps(document)))))


def wait_served(lab, document):
    def missing():
        return "; ".join(f"{maglev}: {lacks}" for maglev in lab.maglevs if (lacks := serves(lab, maglev, document)))

    wait_until(missing, TIMEOUT_S, "the new configuration on all Maglevs")


def log_of(lab, maglev):
    return (lab.node(maglev).directory / "forwarder.log").read_text()


def digest(lab, maglev):
    return status(lab, maglev)["pools"]["web"]["table_digest"]


# The file


@pytest.mark.usefixtures("served_again")
def test_a_file_that_is_renamed_over_is_served_by_all_maglevs_and_the_log_says_what_changed(lab):
    document = with_weight(lab.document, 0, 3)
    with lab.connections(FEW) as conns:
        write_config(lab.directory / CONFIG, document)
        wait_served(lab, document)
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    for maglev in lab.maglevs:
        assert status(lab, maglev)["config"] == {
            "file": str(lab.directory / CONFIG),
            "served": str(lab.directory / CONFIG),
            "refused": "",
        }
        said = f"{maglev}: configuration from {lab.directory / CONFIG}: pool web: weight of 10.2.1.2 1 -> 3\n"
        assert said in log_of(lab, maglev)


def test_an_endpoint_that_was_drained_has_its_weight_again(lab):
    kept = lab.document
    try:
        lab.document = with_weight(kept, 0, 3)
        lab.reload()
        lab.drain("s1")
        assert lab.document["pools"]["web"]["endpoints"][0]["weight"] == 0
        lab.undrain("s1")
        wait_served(lab, with_weight(kept, 0, 3))
    finally:
        lab.document = kept
        lab.reload()


def test_a_configuration_reaches_a_maglev_that_was_started_a_moment_ago(lab):
    """Its control socket is still that of the forwarder that was killed, where nobody answers."""
    with lab.kill("m1"):
        lab.wait_converged()
    with lab.drain("s1"):
        wait_served(lab, lab.document)
    lab.wait_converged()


@pytest.mark.usefixtures("served_again")
def test_a_file_in_a_kubernetes_volume_is_followed(lab):
    file, volume = lab.directory / CONFIG, lab.directory / "volume"
    for version in (1, 2, 3):
        document = with_weight(lab.document, 1, version + 1)
        (volume / f"..{version}").mkdir(parents=True)
        write_config(volume / f"..{version}" / CONFIG, document)
        (volume / "..new").symlink_to(f"..{version}")
        (volume / "..new").replace(volume / "..data")
        if version == 1:
            link = file.with_suffix(".link")
            link.symlink_to(volume / "..data" / CONFIG)
            link.replace(file)
        wait_served(lab, document)


@pytest.mark.usefixtures("served_again")
def test_a_file_that_is_bad_or_gone_changes_nothing_and_the_next_good_one_counts(lab):
    file, before = lab.directory / CONFIG, digest(lab, "m1")

    def refused(words):
        return "" if words in status(lab, "m1")["config"]["refused"] else f"no refusal with {words}"

    with lab.connections(FEW) as conns:
        write_config(file, {**lab.document, "shard": "", "vips": [{"name": "www"}]})
        wait_until(lambda: refused("shard: '' is not allowed"), TIMEOUT_S, "a refusal")
        said = status(lab, "m1")["config"]["refused"]
        for field in ("shard", "vips[0].address", "vips[0].protocol", "vips[0].port", "vips[0].pool"):
            assert f"{CONFIG}: {field}: " in said, f"everything that is wrong should be said at once, but {said}"
        file.unlink()
        wait_until(lambda: refused("No such file or directory"), TIMEOUT_S, "word of the missing file")
        assert digest(lab, "m1") == before, "a file that is not served has changed something"
        document = with_weight(lab.document, 2, 2)
        write_config(file, document)
        wait_served(lab, document)
        assert status(lab, "m1")["config"]["refused"] == ""
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    assert "m1: configuration kept as it was: " in log_of(lab, "m1")


# PUT /config


@pytest.mark.usefixtures("served_again")
def test_a_configuration_that_is_pushed_is_served_until_the_file_counts_again(lab):
    file = lab.directory / CONFIG
    before = file.read_bytes()
    answer = lab.push("m1", with_weight(lab.document, 0, 3))
    assert answer["changed"] == ["pool web: weight of 10.2.1.2 1 -> 3"]
    assert answer["changes"] == [
        {"subject": "pool web", "what": "weight of 10.2.1.2", "change": "changed", "old": 1.0, "new": 3.0}
    ]
    found = status(lab, "m1")
    assert (found["config"]["served"], found["generation"]) == ("PUT /config", answer["generation"])
    assert file.read_bytes() == before, "the file is the operators', and has been rewritten"
    answer = request(lab.node("m1").control, "POST", "/reload")
    assert answer["changed"] == ["pool web: weight of 10.2.1.2 3 -> 1"]
    assert status(lab, "m1")["config"]["served"] == str(file)


@pytest.mark.usefixtures("served_again")
def test_a_push_outlives_news_of_a_file_that_was_reloaded_before_it(lab):
    """The watch waits until a file is quiet; by then it has been read, and another configuration may be served."""
    other, pushed = with_weight(lab.document, 0, 3), with_weight(lab.document, 0, 5)
    write_config(lab.directory / CONFIG, other)
    request(lab.node("m1").control, "POST", "/reload")
    lab.push("m1", pushed)
    for maglev in ("m2", "m3"):
        wait_until(lambda maglev=maglev: serves(lab, maglev, other), TIMEOUT_S, f"the file on {maglev}")
    last = time.monotonic() + 4 * QUIET_S  # m1 hears of the file when the others do
    while time.monotonic() < last:
        assert serves(lab, "m1", pushed) == "", "news of the file, read long ago, undid what was pushed after it"


def test_what_is_served_can_be_asked_for_and_pushed_back(lab):
    control = lab.node("m1").control
    served = request(control, "GET", "/config")
    answer = request(control, "PUT", "/config", body=json.dumps(served).encode())
    assert answer["changed"] == [], "a configuration pushed back should change nothing"
    assert serves(lab, "m1", lab.document) == ""
    lab.reload()


REFUSED = [
    (
        {"shard": "", "forwarder": {"table_size": 8}, "pools": {"web": {"endpoints": [{"address": "10.2.1"}]}}},
        ["shard: ''", "forwarder.table_size: 8", "pools.web.endpoints[0].address: '10.2.1'"],
    ),
    (
        {"forwarder": {"engine": "socket", "threads": 2}},
        [
            "forwarder.engine: 'socket' is not allowed; allowed: the value it had until a restart",
            "forwarder.threads: 2",
        ],
    ),
    ({"metrics": {"port": 9401}}, ["metrics.port: 9401 is not allowed; allowed: the value it had until a restart"]),
    ({"maglevs": [{"name": "m9", "address": "10.1.1.2"}]}, ["maglevs: ['m9']", "allowed: m1 with 10.1.1.2"]),
]


@pytest.mark.parametrize(
    ("change", "said"), REFUSED, ids=["three errors", "needs a restart", "another port", "another machine"]
)
def test_a_push_that_is_refused_says_all_that_is_wrong_and_changes_nothing(lab, change, said):
    with lab.connections(FEW) as conns:
        before = status(lab, "m1")
        with pytest.raises(ControlError) as refusal:
            lab.push("m1", {**lab.document, **change})
        after = status(lab, "m1")
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    for words in said:
        assert f"PUT /config: {words}" in str(refusal.value) or words in str(refusal.value), str(refusal.value)
    del before["uptime_s"], after["uptime_s"]
    assert after == before


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"a: b: c", b"[]"], ids=["nothing", "no text", "no YAML", "a list"])
def test_a_push_that_is_no_configuration_is_refused(lab, body):
    with pytest.raises(ControlError, match=r"PUT /config: .* is not allowed; allowed: "):
        request(lab.node("m1").control, "PUT", "/config", body=body)


@pytest.mark.usefixtures("served_again")
def test_maglevs_that_differ_for_a_while_keep_connections(lab):
    with lab.connections(FEW) as conns:
        lab.push("m1", with_weight(lab.document, 0, 5))
        assert digest(lab, "m1") != digest(lab, "m2"), "the test is void: all Maglevs have one lookup table"
        conns.wait_settled()
        request(lab.node("m1").control, "POST", "/reload")
        assert digest(lab, "m1") == digest(lab, "m2")
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


@pytest.mark.usefixtures("served_again")
def test_a_new_health_check_takes_nobody_out_of_service_before_it_has_a_verdict(lab):
    document = copy.deepcopy(lab.document)
    document["pools"]["web"]["health_check"] = {"type": "tcp", "port": 1, "interval_s": 1, "fall": 100}  # refused
    before = digest(lab, "m1")
    with lab.connections(FEW) as conns:
        lab.push("m1", document)
        conns.wait_settled()
        assert digest(lab, "m1") == before, "endpoints whose new check has no verdict were left out"
        assert conns.broken == 0, conns.report()


# Reloads under traffic


NEIGHBOUR, STRANGER = "10.1.1.98", "10.1.1.99"  # on m1's own link: m1 has to ask for link addresses to send there
EXTRA = {"name": "extra", "address": "192.0.2.9", "protocol": "tcp", "port": 80, "pool": "spare"}


def other_weight(document):
    endpoint = document["pools"]["web"]["endpoints"][0]
    endpoint["weight"] = 4 - endpoint["weight"]


def other_interval(document):
    check = document["pools"]["web"]["health_check"]
    check["interval_s"] = 1.5 - check["interval_s"]


def spare_turned_round(document):
    document["pools"]["spare"]["endpoints"].reverse()
    document["pools"]["spare"]["endpoints"][0]["weight"] = 7


CHANGES = [  # in this order, over and over: each undoes what an earlier one did, or does it another way
    other_weight,
    lambda document: document["pools"]["sinks"]["endpoints"].append({"address": NEIGHBOUR}),
    lambda document: document["vips"].append(EXTRA),
    spare_turned_round,
    other_interval,
    lambda document: document["vips"][1].update(pool="all"),
    lambda document: document["pools"]["sinks"]["endpoints"].pop(),
    lambda document: document["vips"].pop(),
    lambda document: document["pools"]["spare"]["endpoints"][0].update(weight=0),
    lambda document: document["vips"][1].update(pool="web"),
]


def versions(document):
    """Configurations one after another, each changed in another way; none takes an endpoint from the connections."""
    version = document
    for number in range(RELOADS):
        version = copy.deepcopy(version)
        CHANGES[number % len(CHANGES)](version)
        yield version


def prepared(document):
    """The lab's configuration with a UDP service that nobody answers, and pools that nobody uses."""
    changed = copy.deepcopy(document)
    changed["pools"]["web"]["health_check"]["interval_s"] = 0.5
    changed["pools"]["sinks"] = {"endpoints": [{"address": f"10.2.{number}.2"} for number in (1, 2)]}
    changed["pools"]["spare"] = {"endpoints": [{"address": "10.2.3.2"}, {"address": "10.2.4.2"}]}
    changed["pools"]["all"] = {"pools": ["web"]}
    changed["vips"].append({"name": "sink", "address": VIP, "protocol": "udp", "port": SINK_PORT, "pool": "sinks"})
    return changed


@contextlib.contextmanager
def held_by_router(lab, address) -> Iterator[None]:
    """Gives the router one more address on m1's link."""
    router = lab.node("r1")
    place = f"{address}/24", "dev", str(interface_to(router, "m1"))
    router.run("ip", "address", "add", *place)
    try:
        yield
    finally:
        router.run("ip", "address", "del", *place)


@contextlib.contextmanager
def sinks(nodes) -> Iterator[None]:
    """Has nodes count what comes to them as UDP in GRE, and throw it away."""
    for node in nodes:
        node.run("nft", "-f", "-", text=SINK)
    try:
        yield
    finally:
        for node in nodes:
            node.run("nft", "delete", "table", "ip", "sink")


def sunk(nodes):
    documents = (json.loads(node.run("nft", "-j", "list", "counters", "table", "ip", "sink").stdout) for node in nodes)
    return sum(
        entry["counter"]["packets"] for document in documents for entry in document["nftables"] if "counter" in entry
    )


def lost_on_wire(lab, maglev):
    """Packets that the router's kernel dropped on their way to a Maglev: it never had them."""
    router = lab.node("r1")
    return int(router.run("cat", f"/sys/class/net/{interface_to(router, maglev)}/statistics/tx_dropped").stdout)


def sent_to(lab):
    packets = observe.router_view(lab.node("r1")).packets_to
    return {maglev: packets[maglev] - lost_on_wire(lab, maglev) for maglev in lab.maglevs}


def at_rest(lab, nodes):
    """Packets sent to each Maglev and forwarded by each, and those that sinks have counted, when none are under way."""
    seen = [None]

    def moving():
        forwarded = {maglev: statistics(lab, maglev)["forwarded"] for maglev in lab.maglevs}
        seen.append((sent_to(lab), forwarded, sunk(nodes)))
        return "" if seen[-1] == seen[-2] else "counters move"

    wait_until(moving, TIMEOUT_S, "an end of the traffic")
    return seen[-1]


@pytest.mark.usefixtures("served_again")
def test_fifty_reloads_under_traffic_lose_no_packet_and_break_no_connection(lab):
    document = prepared(lab.document)
    lab.document = document
    lab.reload()
    nodes = [lab.node(name) for name in (*lab.endpoints, "r1")]
    with held_by_router(lab, NEIGHBOUR), sinks(nodes):
        sent, forwarded, counted = at_rest(lab, nodes)
        drops = {maglev: statistics(lab, maglev)["drops"] for maglev in lab.maglevs}
        with lab.connections(HELD, interval_s=0.5) as conns:
            assert conns.broken == 0, "the test is void: connections did not come about"
            senders = len(lab.clients)
            rate_pps, flows = RATE_PPS * senders, FLOWS * senders
            flood = lab.traffic.datagrams("sink", flows=flows, rate_pps=rate_pps, seconds=FLOOD_S, size_bytes=40)
            for number, version in enumerate(versions(document)):
                if number % 2:
                    for maglev in lab.maglevs:
                        assert lab.push(maglev, version)["changed"], (
                            f"the test is void: version {number} changes nothing"
                        )
                else:
                    write_config(lab.directory / CONFIG, version)
                wait_served(lab, version)
            flooded = flood.stop().sent
            conns.wait_settled()
            assert conns.broken == 0, conns.report()
        sent_after, forwarded_after, counted_after = at_rest(lab, nodes)
    came = {maglev: sent_after[maglev] - sent[maglev] for maglev in lab.maglevs}
    went = {maglev: forwarded_after[maglev] - forwarded[maglev] for maglev in lab.maglevs}
    assert went == came, f"the router sent {came} packets, the Maglevs forwarded {went}"
    assert {maglev: statistics(lab, maglev)["drops"] for maglev in lab.maglevs} == drops, "Maglevs count drops"
    assert sum(statistics(lab, maglev)["connections"]["overflows"] for maglev in lab.maglevs) == 0
    assert sum(came.values()) > flooded > RELOADS * 400, f"the test is void: {flooded} packets in all"
    assert counted_after - counted > 0.99 * flooded, f"{flooded} sent, sinks counted {counted_after - counted}"


def to_sink(number):
    return bytes(IP(src="10.0.1.2", dst=VIP, id=number) / UDP(sport=30000 + number, dport=SINK_PORT))


@pytest.fixture
def asks_often(lab) -> Iterator[None]:
    """Has m1's kernel repeat its questions for a link address soon: by default it asks once a second, three times."""
    node = lab.node("m1")
    names = [f"net.ipv4.neigh.{interface_to(node, 'r1')}.{name}" for name in ("retrans_time_ms", "mcast_solicit")]
    before = node.run("sysctl", "-n", *names).stdout.split()
    node.set_sysctls(dict(zip(names, ("40", "50"), strict=True)))
    yield
    node.set_sysctls(dict(zip(names, before, strict=True)))


@pytest.mark.usefixtures("served_again", "asks_often")
def test_a_new_endpoint_gets_no_packet_before_the_way_to_it_is_known(lab):
    """It answers m1's question for its link address late: meanwhile, packets come."""
    router = lab.node("r1")
    document = prepared(lab.document)
    lab.push("m1", document)
    document["pools"]["sinks"]["endpoints"] = [{"address": STRANGER}]
    before = statistics(lab, "m1")
    pushing = threading.Thread(target=lab.push, args=("m1", document))
    with sinks([*map(lab.node, lab.endpoints), router]), Tap(router) as tap:
        pushing.start()
        tap.wait_for(lambda frame: frame.packet[24:28] == socket.inet_aton(STRANGER), "an ARP request")  # RFC 826
        put_on_wire(lab, "r1", "m1", map(to_sink, range(200)))
        with held_by_router(lab, STRANGER):
            pushing.join(TIMEOUT_S)
            assert sunk([router]) == 0, "the test is void: the new endpoint answered at once"
            put_on_wire(lab, "r1", "m1", map(to_sink, range(200, 220)))
            wait_until(
                lambda: "" if sunk([router]) == 20 else "not all have come", TIMEOUT_S, "packets to the newcomer"
            )
    after = statistics(lab, "m1")
    assert after["drops"] == before["drops"], "packets were lost that an endpoint in service would have taken"
    assert after["forwarded"] - before["forwarded"] == 220


# Draining


def test_an_endpoint_of_weight_0_keeps_its_connections_and_gets_no_new_ones(lab):
    with lab.connections(FEW) as conns:
        held = {connection.name for connection in conns.all() if connection.endpoint == "s1"}
        assert held, "the test is void: s1 has no connections"
        with lab.drain("s1"):
            lab.wait_converged()
            conns.wait_settled()
            answered = {connection.name for connection in conns.all() if connection.endpoint == "s1"}
            assert (conns.broken, answered) == (0, held), conns.report()
            with lab.connections(FEW) as fresh:
                reached = {connection.endpoint for connection in fresh.all()}
                assert reached == {"s2", "s3", "s4"}, fresh.report()
        lab.wait_converged()
        with lab.connections(FEW) as fresh:
            assert "s1" in {connection.endpoint for connection in fresh.all()}, fresh.report()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


def test_draining_a_maglev_moves_its_traffic_and_undoes_itself(lab):
    with lab.connections(FEW) as conns:
        with lab.drain("m1"):
            assert lab.state_of("m1") == "down"
            lab.wait_converged()
            before = observe.router_view(lab.node("r1")).packets_to
            conns.wait_settled()
            after = observe.router_view(lab.node("r1")).packets_to
            assert after["m1"] == before["m1"], "packets still went to a Maglev that was drained"
            assert sum(after.values()) > sum(before.values()), "the test is void: there was no traffic"
        lab.wait_converged()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    assert lab.state_of("m1") == "up"


@pytest.fixture
def steady_packets(lab) -> Iterator[None]:
    """Packets for a VIP that keep coming to m1, whatever routers know."""
    enough = threading.Event()

    def send():
        while not enough.wait(0.02):
            put_on_wire(lab, "r1", "m1", [to_sink(1)])

    sender = threading.Thread(target=send)
    sender.start()
    yield
    enough.set()
    sender.join()
    request(lab.node("m1").control, "POST", "/undrain")
    lab.wait_converged()


@pytest.mark.usefixtures("steady_packets")
def test_a_drain_that_does_not_come_to_an_end_says_so_and_goes_on(lab):
    with pytest.raises(ControlError, match="packets still come after 1 s of draining, which goes on"):
        request(lab.node("m1").control, "POST", "/drain?wait_s=1&quiet_s=0.5", TIMEOUT_S)
    assert status(lab, "m1")["draining"] is True


@pytest.mark.usefixtures("steady_packets")
def test_whoever_waits_for_a_drain_hears_of_its_being_undone(lab):
    control, heard = lab.node("m1").control, []

    def wait():
        with pytest.raises(ControlError) as refusal:
            request(control, "POST", "/drain?wait_s=15&quiet_s=1", TIMEOUT_S)
        heard.append(str(refusal.value))

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: "" if status(lab, "m1")["draining"] else "not draining", TIMEOUT_S, "draining")
    request(control, "POST", "/undrain")
    waiting.join(TIMEOUT_S)
    assert heard == ["undrained while it was waited for"]


@pytest.mark.parametrize("query", ["wait_s=long", "wait_s=0.1", "quiet=1"])
def test_a_drain_asked_for_wrongly_drains_nothing(lab, query):
    with pytest.raises(ControlError, match="allowed"):
        request(lab.node("m1").control, "POST", f"/drain?{query}")
    assert status(lab, "m1")["draining"] is False


def test_upgrading_a_cluster_one_by_one_breaks_no_connection(lab):
    """There and back: each Maglev is restarted twice, with options that a running one has to refuse."""
    before = {maglev: lab.node(maglev).daemons["forwarder"].pid for maglev in lab.maglevs}
    engine = {maglev: status(lab, maglev)["engine"] for maglev in lab.maglevs}
    assert set(engine.values()) != {"ring"}, "the test is void: it runs the engine ring already"
    with lab.connections(HELD, interval_s=0.5) as conns:
        lab.upgrade(forwarder={"engine": "ring"})
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
        assert {maglev: status(lab, maglev)["engine"] for maglev in lab.maglevs} == dict.fromkeys(lab.maglevs, "ring")
        lab.upgrade(forwarder={"engine": "auto"})
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
        assert {connection.fate for connection in conns.all()} == {"alive"}, conns.report()
    assert {maglev: status(lab, maglev)["engine"] for maglev in lab.maglevs} == engine
    assert not set(before.values()) & {lab.node(maglev).daemons["forwarder"].pid for maglev in lab.maglevs}
