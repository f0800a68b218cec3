"""Metrics: what is counted is what is said, in a text that Prometheus's own parser reads; and how it is served."""

from __future__ import annotations

import http.client
import json
import math
import socket
from collections import Counter
from contextlib import closing, contextmanager
from ipaddress import ip_address, ip_network

import pytest
from frames import tcp
from prometheus_client.parser import text_string_to_metric_families

from maglev import config, metrics
from maglev.conntrack import ConnectionTable
from maglev.engine.decapsulation import Gate, Received
from maglev.engine.exposition import Exposition, MetricsServer
from maglev.errors import IGNORED, NO_DROPS, Discard, PlatformError, Reason
from maglev.fast.conntrack import FastConnectionTable
from maglev.fast.numbering import Numbering
from maglev.flow import Flow, pack_address
from maglev.forwarding import Forwarder, Statistics
from maglev.health import Check, State, Verdict
from maglev.selection import MapBuilder

LOOPBACK = ip_address("127.0.0.1")
TCP_CHECK = config.HealthCheck(type="tcp", port=80)
TABLE = metrics.TableCounts(entries=7, capacity=100, hits=50, misses=9, overflows=1, expired=3, over_share=2)


def a_view(**changes):
    fields = {
        "about": {"maglev": "m1", "shard": "default"},
        "ready": True,
        "draining": False,
        "generation": 4,
        "uptime_s": 12.5,
        "statistics": Statistics(),
        "pool_of": lambda vip, backend: "web" if vip == "www" else "",
        "pools": {"web": metrics.PoolCounts(3, 2)},
        "tables": [TABLE],
        "checks": {},
        "batch_sizes": {},
    }
    return metrics.ForwarderView(**fields | changes)


def text_of(view):
    collect = metrics.of_forwarder if isinstance(view, metrics.ForwarderView) else metrics.of_endpoint
    return Exposition(lambda: collect(view)).text().decode()


def samples(text):
    """What the parser reads: the value of each name and labels; AssertionError where two samples are one series."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, f"{family.name} should be explained"
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(text, name, **labels):
    return samples(text).get((name, frozenset(labels.items())))


def test_packets_and_bytes_are_those_of_the_statistics():
    statistics, endpoint, other = Statistics(), pack_address("10.2.1.2"), pack_address("fd00::1")
    statistics.forwarded = Counter({("www", endpoint): 7, ("www", other): 1, ("gone", endpoint): 2})
    statistics.bytes = Counter({("www", endpoint): 7 * 84, ("www", other): 104, ("gone", endpoint): 90})
    statistics.redirected = Counter({pack_address("10.1.2.2"): 5})
    found = samples(text_of(a_view(statistics=statistics)))
    for name, counts in (("packets", statistics.forwarded), ("bytes", statistics.bytes)):
        for (vip, backend), count in counts.items():
            labels = {"vip": vip, "pool": "web" if vip == "www" else "", "backend": metrics._shown(backend)}
            key = f"maglev_forwarded_{name}_total", frozenset(labels.items())
            assert found[key] == count, f"{key} should be {count}"
    assert found["maglev_redirected_fragments_total", frozenset({("peer", "10.1.2.2")})] == 5


@pytest.mark.parametrize("reason", sorted(Reason))
def test_every_reason_is_counted_once_and_there_from_the_start(reason):
    """A series that is not there cannot be seen to grow."""
    name, labels = {
        Reason.HELD: ("maglev_held_fragments_total", {}),
        Reason.HELLO: ("maglev_hellos_total", {}),
    }.get(reason, ("maglev_dropped_packets_total", {"reason": reason.value}))
    if reason in IGNORED:
        name = "maglev_ignored_packets_total"
    before = samples(text_of(a_view()))
    statistics = Statistics()
    statistics.reasons[reason] = 17
    after = samples(text_of(a_view(statistics=statistics)))
    here = name, frozenset(labels.items())
    is_of_maglev = lambda key: key[0].startswith("maglev_")  # noqa: E731
    changed = {key for key in filter(is_of_maglev, after) if after[key] != before.get(key)}
    assert before[here] == 0
    assert after[here] == 17
    assert changed == {here}, f"only {here} should have grown"


def test_drops_are_the_reasons_that_statistics_call_drops():
    statistics = Statistics()
    statistics.reasons.update(dict.fromkeys(Reason, 1))
    found = samples(text_of(a_view(statistics=statistics)))
    said = {dict(labels)["reason"] for name, labels in found if name == "maglev_dropped_packets_total"}
    assert said == set(statistics.drops()) == {reason.value for reason in set(Reason) - NO_DROPS}


def test_labels_are_escaped():
    """No configuration allows such a name; a parser must read it all the same."""
    name = 'a "b" \\ c\nd'
    statistics = Statistics()
    statistics.forwarded[name, pack_address("10.2.1.2")] = 1
    text = text_of(a_view(statistics=statistics))
    assert value(text, "maglev_forwarded_packets_total", vip=name, pool="", backend="10.2.1.2") == 1


def test_state_tables_and_pools():
    second = TABLE._replace(entries=0, expired=11)
    text = text_of(a_view(draining=True, ready=False, tables=[TABLE, second]))
    assert value(text, "maglev_forwarder_info", maglev="m1", shard="default") == 1
    assert value(text, "maglev_ready") == 0
    assert value(text, "maglev_draining") == 1
    assert value(text, "maglev_configuration_generation") == 4
    assert value(text, "maglev_uptime_seconds") == 12.5
    assert value(text, "maglev_pool_endpoints", pool="web") == 3
    assert value(text, "maglev_pool_healthy_endpoints", pool="web") == 2
    counters = [f"{name}_total" for name in ("hits", "misses", "overflows", "expired", "over_share")]
    names = ["entries", "capacity_entries", *counters]
    for name, expected in zip(names, TABLE, strict=True):
        assert value(text, f"maglev_connection_table_{name}", table="0") == expected, name
    assert value(text, "maglev_connection_table_entries", table="1") == 0
    assert value(text, "maglev_connection_table_expired_total", table="1") == 11


def test_a_backend_is_counted_for_the_pool_that_lists_it():
    """Also where several pools may serve a VIP, and where one endpoint is in two of them: the first counts."""
    one, two, three = (f"10.2.{number}.2" for number in (1, 2, 3))
    document = {
        "maglevs": [{"name": "m1", "address": "10.1.1.2"}],
        "pools": {
            "web": {"endpoints": [{"address": one}, {"address": two}]},
            "spare": {"endpoints": [{"address": two}, {"address": three}]},
        },
        "vips": [
            {"name": "www", "address": "192.0.2.1", "protocol": "tcp", "port": 80, "pool": "web"},
            {"name": "safe", "address": "192.0.2.2", "protocol": "tcp", "port": 80, "pool": "web"}
            | {"backup_pools": ["spare"]},
            {"name": "spares", "address": "192.0.2.3", "protocol": "tcp", "port": 80, "pool": "spare"},
        ],
        "forwarder": {"table_size": 7},
    }
    whole = config.parse(json.dumps(document))
    pool_of = metrics.pool_names(whole, "default")
    backends = [pack_address(address) for address in (one, two, three)]
    assert [pool_of("www", backend) for backend in backends[:2]] == ["web", "web"]
    assert [pool_of("safe", backend) for backend in backends] == ["web", "web", "spare"]
    assert pool_of("gone", backends[0]) == ""
    vips = MapBuilder().build(whole, "default", lambda member: str(member.address) != one)
    assert metrics.count_pools(whole, "default", vips.pools) == {"web": (2, 1), "spare": (2, 2)}
    only_safe = config.parse(json.dumps(document | {"vips": document["vips"][1:2]}))
    vips = MapBuilder().build(only_safe, "default", lambda member: str(member.address) != one)
    assert metrics.count_pools(only_safe, "default", vips.pools) == {"web": (2, 1), "spare": (2, 2)}


def test_every_check_has_a_series_of_its_own():
    """Also where two pools check one address in ways that differ in a number only."""
    address = ip_address("10.2.1.2")
    slower = TCP_CHECK.model_copy(update={"interval_s": 2.0})
    web = config.HealthCheck(type="http", port=8080, path="/healthz")
    states = {
        Check(address, TCP_CHECK): State(Verdict.HEALTHY),
        Check(address, slower): State(Verdict.UNHEALTHY),
        Check(ip_address("fd00::2"), web): State(),
        Check(address, TCP_CHECK, ip_address("192.0.2.1")): State(Verdict.UNHEALTHY),
    }
    text = text_of(a_view(checks=states))
    name, checked = "maglev_health_check_healthy", metrics.describe(web)
    assert checked.startswith("http, port 8080, path /healthz")
    assert value(text, name, address="10.2.1.2", check="tcp, port 80", vip="") == 1
    assert value(text, name, address="10.2.1.2", check="tcp, port 80, interval_s 2.0", vip="") == 0
    assert value(text, name, address="fd00::2", check=checked, vip="") == 0
    assert value(text, name, address="10.2.1.2", check="tcp, port 80", vip="192.0.2.1") == 0
    assert [value(text, "maglev_health_checks", verdict=verdict.value) for verdict in Verdict] == [1, 1, 2]


def test_batch_sizes_are_a_cumulative_histogram():
    """A batch counted at 2 had 2 or 3 packets; what is the largest class has no bound."""
    text = text_of(a_view(batch_sizes={1: 10, 2: 0, 4: 5, 8: 1}))
    found = [value(text, "maglev_batch_packets_bucket", le=bound) for bound in ("1.0", "3.0", "7.0", "+Inf")]
    assert found == [10, 10, 15, 16]
    assert value(text, "maglev_batch_packets_count") == 16
    assert "maglev_batch_packets" not in text_of(a_view()), "an engine without batches has no histogram of them"


def test_what_the_process_uses_is_there():
    text = text_of(a_view())
    assert value(text, "process_cpu_seconds_total") > 0
    assert value(text, "process_resident_memory_bytes") > 1e6


def test_an_endpoint_says_what_it_took_out_of_gre():
    maglevs = {ip_address("10.1.1.2"): metrics.Delivered(3, 300), ip_address("10.1.2.2"): metrics.Delivered(0, 0)}
    view = metrics.EndpointView({"address": "10.2.1.2"}, 1.0, maglevs, Counter({Reason.NOT_VIP: 2}))
    text = text_of(view)
    assert value(text, "maglev_endpoint_received_packets_total", maglev="10.1.1.2") == 3
    assert value(text, "maglev_endpoint_received_bytes_total", maglev="10.1.1.2") == 300
    assert value(text, "maglev_endpoint_received_packets_total", maglev="10.1.2.2") == 0
    assert value(text, "maglev_endpoint_dropped_packets_total", reason="not_vip") == 2
    assert value(text, "maglev_endpoint_dropped_packets_total", reason="bad_gre_header") == 0
    in_kernel = text_of(view._replace(reasons=None))
    assert "maglev_endpoint_dropped" not in in_kernel, "what the kernel does not say, nobody should claim to know"


def test_a_gate_counts_by_maglev_what_it_lets_in():
    document = {
        "maglevs": [{"name": "m1", "address": "10.1.1.2"}, {"name": "m2", "address": "10.1.2.2"}],
        "pools": {"web": {"endpoints": [{"address": "10.2.1.2"}]}},
        "vips": [{"name": "www", "address": "192.0.2.1", "protocol": "tcp", "port": 80, "pool": "web"}],
        "forwarder": {"table_size": 7},
    }
    vips = MapBuilder().build(config.parse(json.dumps(document)), "default", lambda member: True)
    sent = [tcp(payload=bytes(size)) for size in (1, 2, 3)]
    outer = [Forwarder(pack_address("10.1.1.2"), ConnectionTable(), vips).decide(frame, 0.0).packet for frame in sent]
    one, two = map(ip_address, ("10.1.1.2", "10.1.2.2"))
    received = [Received(pack_address(one), packet[20:]) for packet in outer]
    gate, stranger = (Gate(known, [ip_network("192.0.2.1")]) for known in ([one, two], [two]))
    for each in received:
        gate.admit(each)
    with pytest.raises(Discard, match="not_from_maglev"):
        stranger.admit(received[0])
    assert gate.received() == {one: metrics.Delivered(3, sum(len(frame) - 14 for frame in sent)), two: (0, 0)}
    assert stranger.received() == {two: (0, 0)}, "what is kept out is not received"


@pytest.mark.parametrize(
    "make", [lambda: ConnectionTable(10, 60.0), lambda: FastConnectionTable(Numbering(), 10, 60.0)]
)
def test_a_table_counts_the_entries_that_expire(make):
    table, backend = make(), pack_address("10.2.1.2")
    flows = [Flow(backend, backend, 6, port, 80) for port in range(4)]
    for flow in flows[:3]:
        table.record(flow, backend, 100.0)
    table.lookup(flows[0], 130.0)
    table.record(flows[3], backend, 130.0)
    assert table.expired == 0
    table.record(flows[3], backend, 161.0)
    assert table.expired == 2, "two have been idle for 61 s, two were used again"


def test_samples_are_made_as_they_are_written():
    """So that whoever writes them can give way: a family holds no list of ten thousand samples."""
    statistics, made = Statistics(), []
    statistics.forwarded.update({("www", number.to_bytes(16, "big")): 1 for number in range(1000)})

    def noticing(vip, backend):
        made.append(backend)
        return "web"

    families = {each.name: each for each in metrics.of_forwarder(a_view(statistics=statistics, pool_of=noticing))}
    assert made == []
    next(iter(families["maglev_forwarded_packets"].samples))
    assert len(made) == 1


# --- served ----------------------------------------------------------------------------------------------------------


@contextmanager
def serving(exposition, port=None):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = port or free.getsockname()[1]
    with closing(MetricsServer([LOOPBACK], port, exposition)) as server:
        server.start()
        yield port


def get(port, path="/metrics"):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as client:
        client.request("GET", path)
        answer = client.getresponse()
        return answer, answer.read().decode()


def test_it_is_served_over_http():
    with serving(Exposition(lambda: metrics.of_forwarder(a_view()))) as port:
        answer, text = get(port)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert value(text, "maglev_ready") == 1
        answer, text = get(port, "/")
        assert (answer.status, text) == (404, "no '/'; there is /metrics\n")


def test_it_is_served_anew_each_time():
    views = iter(a_view(generation=number) for number in range(1, 4))
    with serving(Exposition(lambda: metrics.of_forwarder(next(views)))) as port:
        assert [value(get(port)[1], "maglev_configuration_generation") for _ in range(3)] == [1, 2, 3]


def test_only_the_addresses_that_were_named_answer():
    with serving(Exposition(lambda: metrics.of_forwarder(a_view()))) as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_port_in_use_is_said_with_a_way_out():
    exposition = Exposition(list)
    with serving(exposition) as port, pytest.raises(PlatformError) as refused:
        MetricsServer([LOOPBACK], port, exposition)
    said = f"cannot serve metrics on 127.0.0.1:{port}: Address already in use; set metrics.port to another port"
    assert str(refused.value) == f"{said}, or 0 for none"


def test_port_0_opens_no_socket():
    with closing(MetricsServer([LOOPBACK], 0, Exposition(list))) as server:
        server.start()
        assert server._servers == []


def test_a_scrape_gives_way(monkeypatch):
    """While 30,000 samples are written, whoever waits for the interpreter has it at least every few hundred."""
    pauses = []
    monkeypatch.setattr("maglev.engine.exposition.time.sleep", pauses.append)
    statistics = Statistics()
    statistics.forwarded.update({("www", number.to_bytes(16, "big")): 1 for number in range(30_000)})
    text = text_of(a_view(statistics=statistics))
    assert len(pauses) >= 30_000 / 300, f"only {len(pauses)} pauses"
    assert all(pause > 0 for pause in pauses)
    assert sum(math.isclose(count, 1) for (name, _), count in samples(text).items() if "forwarded" in name) == 30_000
