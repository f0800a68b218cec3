"""iperf3 through a VIP: its connections and its datagrams belong together, so the client must keep its endpoint.

A server answers on every endpoint. A test is a control connection and several more to the same port, over TCP or UDP,
which the server tells by a cookie: one that knows nothing of it sends them away, or waits for those that never come.
"""

from __future__ import annotations

import json

import pytest
from settling import as_configured
from wires import VIP, status

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=4)

PORT = 5201  # iperf3's own
TIMEOUT_S = 20.0
STREAMS = 4
SECONDS = 1
MOST_S = 6  # of a run that hangs, because the server waits for connections that went elsewhere


@pytest.fixture
def serve(lab):
    """iperf3 servers on all endpoints; returns a function that has the Maglevs serve them, with an affinity or not.

    They are bound to the VIP: otherwise their datagrams would come from the endpoint's own address.
    """
    vips = lab.document["vips"]
    for name in lab.endpoints:
        lab.node(name).start("iperf3", ["iperf3", "--server", "--bind", VIP, "--port", str(PORT), "--forceflush"])
    for name in lab.endpoints:
        wait_until(lambda name=name: missing_server(lab, name), TIMEOUT_S, f"iperf3 on {name}")

    def change(affinity):
        more = {"address": VIP, "port": PORT, "pool": "web", "affinity": affinity}
        new = [{"name": f"iperf-{protocol}", "protocol": protocol, **more} for protocol in ("tcp", "udp")]
        lab.document["vips"] = [*vips, *new]
        lab.reload()
        for maglev in lab.maglevs:
            assert "iperf-udp" in status(lab, maglev)["served_by"]

    with as_configured(lab):
        yield change
        for name in lab.endpoints:
            lab.node(name).stop_daemons(names=["iperf3"])


def missing_server(lab, name):
    return "" if f":{PORT} " in lab.run(name, "ss -Htln").stdout else "nobody listens"


def iperf(lab, *options):
    """Runs a test from c1 for a second; returns its JSON report, which names an error if there was one.

    A run that hangs is ended; the server then lets go of it, and takes the next test.
    """
    command = f"timeout {MOST_S} iperf3 --client {VIP} --port {PORT} --time {SECONDS} --json {' '.join(options)}"
    done = lab.run("c1", command)
    return json.loads(done.stdout) if done.stdout.strip() else {"error": f"exit status {done.returncode}, no report"}


def accepted(lab):
    """How many tests each endpoint's server has accepted."""
    return {name: (lab.node(name).directory / "iperf3.log").read_text().count("Accepted") for name in lab.endpoints}


def busy(before, after):
    return {name for name in after if after[name] > before[name]}


def test_tcp_with_four_streams(lab, serve):
    serve("client")
    before = accepted(lab)
    report = iperf(lab, "--parallel", str(STREAMS))
    assert "error" not in report, report["error"]
    assert len(report["end"]["streams"]) == STREAMS
    assert all(stream["receiver"]["bytes"] > 0 for stream in report["end"]["streams"]), report["end"]
    assert len(busy(before, accepted(lab))) == 1, "one endpoint should have served all of it"


def test_tcp_the_other_way(lab, serve):
    """The endpoint sends: acknowledgements alone go through the Maglev."""
    serve("client")
    report = iperf(lab, "--parallel", str(STREAMS), "--reverse")
    assert "error" not in report, report["error"]
    assert report["end"]["sum_received"]["bytes"] > 0


def test_udp_with_its_control_connection(lab, serve):
    """TCP and UDP of one client meet one endpoint, and at a rate that everybody bears nothing is lost."""
    serve("client")
    before = accepted(lab)
    report = iperf(lab, "--udp", "--bitrate", "2M", "--length", "1200", "--parallel", "2")
    assert "error" not in report, report["error"]
    total = report["end"]["sum"]
    assert total["packets"] > 300, f"4 Mbit/s are 416 such datagrams a second, but sent were {total['packets']}"
    assert total["lost_packets"] <= total["packets"] // 100, f"{total['lost_packets']} of {total['packets']} were lost"
    assert len(busy(before, accepted(lab))) == 1


def test_without_affinity_connections_of_a_test_meet_different_endpoints(lab, serve):
    """The contrast: of five connections to four endpoints, all meet the same one once in 256 tests, so thrice never."""
    serve("connection")
    reports = (iperf(lab, "--parallel", str(STREAMS)) for _ in range(3))
    assert any("error" in report for report in reports), "connections that meet different endpoints should have failed"
