"""Real HTTP clients and servers, bulk transfers and flows of published sizes, next to what the router counts."""

from __future__ import annotations

import pytest
from test_lab_traffic import SYN, RouterCounts
from wires import VIP, VIP6, curl

from lab.errors import LabError
from lab.traffic.flow_sizes import DISTRIBUTIONS, flows
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4, servers="nginx")

TIMEOUT_S = 10.0
OPENED = f"ip daddr {VIP} tcp dport 80 {SYN} COUNT"
FETCHED = f"ip saddr {VIP} tcp sport 80 COUNT"


@pytest.fixture
def for_iperf3(lab):
    """The rack's VIPs, and two more for iperf3: they keep a client on one endpoint."""
    vips = lab.document["vips"]
    common = {"protocol": "tcp", "port": 5201, "pool": "web", "affinity": "client"}
    own = [{"name": name, "address": address, **common} for name, address in (("iperf4", VIP), ("iperf6", VIP6))]
    lab.document["vips"] = [*vips, *own]
    lab.reload()
    yield lab
    lab.document["vips"] = vips
    lab.reload()


def test_nginx_serves_what_python_serves(lab):
    """One interface, two servers: what nginx has no answer to it asks Python's for."""
    assert "server: nginx" in curl(lab, "-i", f"http://{VIP}/").lower()
    name, _, rest = curl(lab, f"http://{VIP}/").partition(" ")
    assert name in lab.endpoints
    assert rest == "answers 10.0.1.2\n"
    assert curl(lab, f"'http://[{VIP6}]/healthz'") == "ok\n"
    assert curl(lab, f"http://{VIP}/bytes/1K", "| wc -c") == "1000\n"
    assert "received 5 bytes" in curl(lab, "-X PUT -d 12345", f"http://{VIP}/anything")


def test_nginx_dies_with_its_endpoint_and_comes_back(lab):
    with lab.kill("s1"):
        lab.wait_converged()
        assert lab.run("s1", "ss -Hltn sport = :80").stdout == ""
        report = lab.traffic.http(program="curl", requests=50, connections=4, keep_alive=False).wait()
        assert report.received == 50, report
    lab.wait_converged()
    assert lab.run("s1", "ss -Hltn sport = :80").stdout != ""


def test_curl_opens_a_connection_for_every_request(lab):
    with RouterCounts(lab, opened=OPENED) as counts:
        report = lab.traffic.http(program="curl", requests=200, connections=8, keep_alive=False).wait()
        assert counts.packets("opened") == report.sent == report.received == report.asked == 200, report
    assert 0 < report.times_ms["50%"] <= report.times_ms["max"]


def test_ab_sends_as_many_requests_as_it_was_asked_for(lab):
    with RouterCounts(lab, opened=OPENED) as counts:
        report = lab.traffic.http(program="ab", requests=300, connections=8, keep_alive=False).wait()
        assert report.received == report.asked == 300, report
        assert 300 <= counts.packets("opened") <= 300 + 8, "it may open connections that it has no request for"


@pytest.mark.parametrize("keep_alive", [True, False])
def test_wrk_is_counted_as_the_router_counts_it(lab, keep_alive):
    with RouterCounts(lab, opened=OPENED, fetched=FETCHED) as counts:
        report = lab.traffic.http(program="wrk", seconds=1, connections=8, keep_alive=keep_alive).wait()
        opened, (_, size) = counts.packets("opened"), counts.now()["fetched"]
    assert report.received > 100, report
    assert not report.errors, report
    if keep_alive:
        assert opened <= 8 + 2, "each client tries the address once before it begins"
    else:
        assert report.received <= opened <= report.received + 8 + 2, report
    assert size > report.bytes, "what was read came through the router"


def test_wrk_that_is_stopped_tells_what_it_did(lab):
    handle = lab.traffic.http("www6", program="wrk", seconds=600, clients=["c1"])
    with RouterCounts(lab, fetched=f"ip6 saddr {VIP6} COUNT") as counts:
        wait_until(lambda: "" if counts.packets("fetched") > 200 else "too few", TIMEOUT_S, "answers")
    report = handle.stop()
    assert report.finished
    assert report.received > 50, report
    assert report.seconds < 60


def test_a_bad_status_is_no_good_answer(lab):
    report = lab.traffic.http(program="curl", requests=20, connections=4, path="/bytes/none").wait()
    assert (report.sent, report.received, report.errors) == (20, 0, {"status": 20})


def test_a_program_that_fails_says_why(lab):
    with RouterCounts(lab, refused=f"ip daddr {VIP} tcp dport 80 COUNT reject with tcp reset") as counts:
        handle = lab.traffic.http(program="wrk", seconds=1, connections=2, clients=["c1"])
        with pytest.raises(LabError, match="wrk on c1 failed: unable to connect"):
            handle.wait(TIMEOUT_S)
        assert counts.packets("refused") > 0


@pytest.mark.parametrize(("vip", "direction"), [("www", "up"), ("www6", "down")])
def test_bulk_over_one_connection(lab, vip, direction):
    rules = {"4": OPENED, "6": f"ip6 daddr {VIP6} tcp dport 80 {SYN} COUNT"}
    there, back = (f"ip daddr {VIP} tcp dport 80 COUNT", f"ip6 saddr {VIP6} tcp sport 80 COUNT")
    rules = {"opened": rules["4" if vip == "www" else "6"], "carried": there if direction == "up" else back}
    with RouterCounts(lab, **rules) as counts:
        report = lab.traffic.bulk(vip, seconds=1, direction=direction).wait()
        opened, (_, carried) = counts.packets("opened"), counts.now()["carried"]
    assert opened == 1
    assert report.received == report.sent > 1e6, report
    assert report.damaged == 0
    assert not report.failures, report
    assert report.received < carried < 1.3 * report.received, "headers, and what TCP sent again"


@pytest.mark.parametrize(("vip", "family", "address"), [("iperf4", "ip", VIP), ("iperf6", "ip6", VIP6)])
def test_iperf3_through_a_vip_with_client_affinity(for_iperf3, vip, family, address):
    lab = for_iperf3
    with RouterCounts(lab, carried=f"{family} daddr {address} tcp dport 5201 COUNT") as counts:
        report = lab.traffic.bulk(vip, program="iperf3", seconds=1, streams=2).wait()
        _, carried = counts.now()["carried"]
    assert report.received > 1e6, report
    assert report.received < carried < 1.5 * report.sent, report
    assert not report.failures, report
    left = [name for name in lab.endpoints if lab.run(name, "ss -Hltn sport = :5201").stdout]
    assert left == [], "its servers go with it"


@pytest.mark.parametrize(("vip", "distribution"), [("www", "web_search"), ("www6", "data_mining")])
def test_flows_of_published_sizes_are_fetched_whole(lab, vip, distribution):
    largest, load_mbit, seconds = 10**6, 30, 2.0
    source = f"ip saddr {VIP}" if vip == "www" else f"ip6 saddr {VIP6}"
    with RouterCounts(lab, fetched=f"{source} tcp sport 80 COUNT") as counts:
        handle = lab.traffic.flow_mix(
            vip, distribution=distribution, load_mbit=load_mbit, seconds=seconds, largest_bytes=largest, seed=5
        )
        report = handle.wait()
        _, carried = counts.now()["fetched"]
    sizes = DISTRIBUTIONS[distribution].cut(largest)
    due = [flow for seed in (10, 11) for flow in flows(sizes, load_mbit * 1e6 / 2, seconds, seed)]  # of two clients
    assert report.asked == report.sent == report.received == len(due), report
    assert report.bytes == report.bytes_asked == sum(flow.size for flow in due)
    assert report.bytes < carried < 1.5 * report.bytes + 1000 * len(due)
    assert sum(report.completed.values()) == len(due)
    assert report.completed["mice"] == sum(flow.size <= 100_000 for flow in due)
    assert 0 < report.times_ms["mice"]["50%"] < 5000
