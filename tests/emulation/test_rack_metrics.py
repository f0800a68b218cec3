"""Metrics as a monitoring system gets them: over HTTP, from the routers' side, grown by exactly what was sent."""

from __future__ import annotations

import copy
import random

import pytest
from prometheus_client.parser import text_string_to_metric_families
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw
from settling import as_configured
from wires import VIP, put_on_wire, statistics

from lab.waiting import wait_until
from maglev.config import parse

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=3)

CLIENT = "10.0.1.2"
PORT = parse("{maglevs: [{name: m1, address: 10.1.1.2}]}").metrics.port
TIMEOUT_S = 10.0
PACKETS = 200


def scraped(lab, node, at="r1"):
    """All samples that a node serves, asked from another: by name and labels."""
    done = lab.run(
        at, f"curl --silent --show-error --fail --max-time 10 http://{lab.node(node).address}:{PORT}/metrics"
    )
    assert done.returncode == 0, f"{node} should serve metrics: {done.stderr}"
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }


def total(samples, name, **labels):
    """The sum of a name's samples that have these labels."""
    return sum(value for (n, *its), value in samples.items() if n == name and set(labels.items()) <= set(its))


def packets(count, size, dport=80):
    """TCP segments of as many flows, each an IP packet of 40 bytes and a payload."""
    for number in range(count):
        yield bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=2000 + number, dport=dport, flags="A") / Raw(bytes(size)))


def wait_for(lab, node, name, amount, before, **labels):
    """Waits until a node's counter has grown by an amount; returns the samples then."""
    grown = lambda: total(scraped(lab, node), name, **labels) - total(before, name, **labels)  # noqa: E731
    wait_until(lambda: "" if grown() >= amount else f"{grown()} of {amount}", TIMEOUT_S, f"{name} of {node}")
    return scraped(lab, node)


def test_packets_and_bytes_grow_by_exactly_what_was_sent(lab):
    """Outer bytes: 24 more than each inner packet's 40 and its payload."""
    before, size = scraped(lab, "m1"), 60
    put_on_wire(lab, "r1", "m1", packets(PACKETS, size))
    name = "maglev_forwarded_packets_total"
    after = wait_for(lab, "m1", name, PACKETS, before, vip="www")
    grown = lambda name, **labels: total(after, name, **labels) - total(before, name, **labels)  # noqa: E731
    assert grown(name, vip="www", pool="web") == PACKETS
    assert grown("maglev_forwarded_bytes_total", vip="www", pool="web") == PACKETS * (24 + 40 + size)
    assert grown(name) == PACKETS, "and no other VIP's counter has grown"
    met = grown("maglev_connection_table_misses_total") + grown("maglev_connection_table_hits_total")
    assert met == PACKETS, "each packet should have been looked up once"


def test_what_each_backend_was_sent_is_what_it_received(lab):
    """The endpoints count what comes out of GRE from m1: the same packets, without the 24 bytes."""
    before = {node: scraped(lab, node) for node in ("m1", *lab.endpoints)}
    put_on_wire(lab, "r1", "m1", packets(PACKETS, random.Random(3).randrange(100)))
    m1, outer = lab.node("m1").address, "maglev_forwarded_packets_total"
    after = {"m1": wait_for(lab, "m1", outer, PACKETS, before["m1"])}
    shares = {}
    for endpoint in lab.endpoints:
        address = lab.node(endpoint).address
        sent = {n: total(after["m1"], f"maglev_forwarded_{n}_total", backend=address) for n in ("packets", "bytes")}
        sent = {n: sent[n] - total(before["m1"], f"maglev_forwarded_{n}_total", backend=address) for n in sent}
        name = "maglev_endpoint_received_{}_total"
        after[endpoint] = wait_for(lab, endpoint, name.format("packets"), sent["packets"], before[endpoint], maglev=m1)
        got = {
            n: total(after[endpoint], name.format(n), maglev=m1) - total(before[endpoint], name.format(n), maglev=m1)
            for n in sent
        }
        assert got == {"packets": sent["packets"], "bytes": sent["bytes"] - 24 * sent["packets"]}, endpoint
        shares[endpoint] = sent["packets"]
    assert sum(shares.values()) == PACKETS
    assert all(shares.values()), f"every endpoint should have had its share: {shares}"


def test_drops_and_redirected_fragments_are_counted(lab):
    before = scraped(lab, "m1")
    put_on_wire(lab, "r1", "m1", packets(7, 0, dport=81))
    after = wait_for(lab, "m1", "maglev_dropped_packets_total", 7, before, reason="no_vip_port")
    assert total(after, "maglev_dropped_packets_total") - total(before, "maglev_dropped_packets_total") == 7
    pieces = [
        bytes(IP(src=f"10.0.1.{host}", dst=VIP, id=host, flags="MF") / UDP(sport=9, dport=7) / Raw(bytes(64)))
        for host in range(3, 43)
    ]
    put_on_wire(lab, "r1", "m1", pieces)
    name = "maglev_redirected_fragments_total"
    wait_for(lab, "m1", name, 1, before, peer=lab.node("m2").address)
    sent_on = lambda: {each["maglev"]: each["packets"] for each in statistics(lab, "m1")["redirected"]}  # noqa: E731
    address = lab.node("m2").address
    same = lambda: total(scraped(lab, "m1"), name, peer=address) == sent_on()[address]  # noqa: E731
    wait_until(lambda: "" if same() else "they differ", TIMEOUT_S, "one count of redirected fragments")


def test_health_and_state_follow_what_happens(lab):
    name, s2 = "maglev_health_check_healthy", lab.node("s2").address
    assert total(scraped(lab, "m1"), name, address=s2) == 1
    assert total(scraped(lab, "m1"), "maglev_ready") == 1
    assert total(scraped(lab, "m1"), "maglev_pool_healthy_endpoints", pool="web") == 3
    generation = total(scraped(lab, "m1"), "maglev_configuration_generation")
    with lab.kill("s2"):
        lab.wait_converged()
        during = scraped(lab, "m1")
        assert total(during, name, address=s2) == 0
        assert total(during, "maglev_pool_healthy_endpoints", pool="web") == 2
        assert total(during, "maglev_pool_endpoints", pool="web") == 3
        assert total(during, "maglev_configuration_generation") > generation
    lab.wait_converged()
    assert total(scraped(lab, "m1"), name, address=s2) == 1


def test_the_control_socket_says_the_same(lab):
    path = lab.node("m1").control
    done = lab.run("m1", f"curl --silent --fail --unix-socket {path} http://maglev/metrics")
    names = {family.name for family in text_string_to_metric_families(done.stdout)}
    served = {name.removesuffix("_total").removesuffix("_info") for name, *_ in scraped(lab, "m1")}
    assert {"maglev_forwarded_packets", "maglev_ready", "process_cpu_seconds"} <= names & served


def test_no_other_address_of_a_maglev_answers(lab):
    """Metrics are no business of the VIP's clients: the port is bound to the Maglev's own address."""
    done = lab.run("m1", "ss -Htln")
    bound = {line.split()[3] for line in done.stdout.splitlines() if line.split()[3].endswith(f":{PORT}")}
    own = {str(address) for machine in lab.config.maglevs if machine.name == "m1" for address in machine.addresses}
    assert {address.rpartition(":")[0].strip("[]") for address in bound} == own, done.stdout


@pytest.fixture
def with_spare(lab):
    """s3 serves the web only when the rest of the rack does not, until the test's end."""
    some, spare = (copy.deepcopy(lab.document["pools"]["web"]) for _ in range(2))
    some["endpoints"], spare["endpoints"] = some["endpoints"][:2], spare["endpoints"][2:3]
    with as_configured(lab):
        lab.document["pools"] |= {"some": some, "spare": spare}
        lab.document["vips"][0] |= {"pool": "some", "backup_pools": ["spare"]}
        lab.reload()
        yield


def test_backup_pools_are_counted_as_their_own(lab, with_spare):
    before = scraped(lab, "m1")
    assert lab.config.vips[0].name == "www"
    assert total(before, "maglev_pool_endpoints", pool="some") == 2
    assert total(before, "maglev_pool_healthy_endpoints", pool="spare") == 1
    with lab.kill("s1"), lab.kill("s2"):
        healthy = lambda: total(scraped(lab, "m1"), "maglev_pool_healthy_endpoints", pool="some")  # noqa: E731
        wait_until(lambda: f"{healthy()} healthy" if healthy() else "", TIMEOUT_S, "both down")
        put_on_wire(lab, "r1", "m1", packets(20, 0))
        name = "maglev_forwarded_packets_total"
        after = wait_for(lab, "m1", name, 20, before, vip="www", pool="spare")
        assert total(after, name, vip="www") - total(before, name, vip="www") == 20
