"""VIPs that come and go while everything runs: Maglevs and endpoints follow one file, and nothing is restarted."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
from collections.abc import Iterator

import pytest
from settling import as_configured
from wires import inside, status

from lab import observe
from lab.nodes import CONFIG, write_config
from lab.waiting import wait_until
from maglev.engine.control import request

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=3, clients=1)

TIMEOUT_S = 15.0
NEW = {"name": "new", "address": "192.0.2.9", "protocol": "tcp", "port": 80, "pool": "web"}
GROUPED = [
    {"name": "shop", "prefix_group": "clusters", "suffix": "0.0.0.3", "protocol": "tcp", "port": 80, "pool": "web"},
    {"name": "line", "prefix_group": "clusters", "suffix": "0.0.0.3", "protocol": "tcp", "port": 7, "pool": "web"},
]
OWN_PREFIX, OTHER_PREFIX = "192.0.2.64/28", "192.0.2.128/26"
OWN_SHOP, OTHER_SHOP = "192.0.2.67", "192.0.2.131"


@pytest.fixture(autouse=True)
def back_as_it_was(lab) -> Iterator[None]:
    """Lets the lab's own configuration count again after a test, and waits until endpoints have let go of the rest."""
    with as_configured(lab):
        yield
    lab.wait_converged()
    wait_until(lambda: "; ".join(left for name in lab.endpoints if (left := leaving(lab, name))), TIMEOUT_S, "an end")


def leaving(lab, endpoint):
    return ", ".join(status(lab, endpoint)["vips_that_left"])


def with_vips(lab, *vips, **more):
    return {**copy.deepcopy(lab.document), "vips": [*lab.document["vips"], *vips], **more}


def write(lab, document):
    """Changes the file alone: that everybody follows it is what is tested."""
    write_config(lab.directory / CONFIG, document)


def answers(lab, address):
    """Which endpoint answers a client at an address; "" if none does."""
    done = lab.run("c1", f"curl --silent --max-time 1 http://{address}/")
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout else ""


def wait_answered(lab, *addresses):
    def missing():
        return ", ".join(address for address in addresses if not answers(lab, address))

    wait_until(missing, TIMEOUT_S, "an answer from each new VIP")


def processes(lab):
    """The daemons of all nodes, and when the kernel says that each was started."""
    return {
        (node.name, name): (daemon.pid, open(f"/proc/{daemon.pid}/stat").read().rpartition(")")[2].split()[19])
        for node in lab.net.hosts
        for name, daemon in node.daemons.items()
    }


def routes(lab):
    return observe.ecmp(lab.node("r1"))


def test_a_vip_that_is_added_is_reached_and_nothing_was_restarted(lab):
    before = processes(lab)
    assert not answers(lab, NEW["address"]), "the test is void: somebody answers there already"
    with lab.connections(40) as conns:
        write(lab, with_vips(lab, NEW))
        wait_answered(lab, NEW["address"])
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    assert {answers(lab, NEW["address"]) for _ in range(60)} == set(lab.endpoints), "every endpoint should answer there"
    assert processes(lab) == before, "every daemon should be the one that it was"
    said = (lab.node("s1").directory / "endpoint.log").read_text()
    assert f"endpoint 10.2.1.2: configuration from {lab.directory / CONFIG}: holds 192.0.2.9 too\n" in said


def test_the_traffic_of_another_clusters_prefix_is_taken_over_by_one_change(lab):
    """Two services, and what is changed is a line that names neither."""
    before = processes(lab)
    write(lab, with_vips(lab, *GROUPED, prefix_groups={"clusters": [OWN_PREFIX]}))
    wait_answered(lab, OWN_SHOP)
    assert not answers(lab, OTHER_SHOP)
    assert OTHER_SHOP not in routes(lab)
    with lab.connections(40) as conns:
        write(lab, with_vips(lab, *GROUPED, prefix_groups={"clusters": [OWN_PREFIX, OTHER_PREFIX]}))
        wait_answered(lab, OWN_SHOP, OTHER_SHOP)
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    assert routes(lab)[OTHER_SHOP] == routes(lab)[OWN_SHOP] == ("10.1.1.2", "10.1.2.2")
    assert OTHER_PREFIX not in routes(lab), "VIPs are announced, not the prefixes that they stand in"
    for maglev in lab.maglevs:
        log = (lab.node(maglev).directory / "forwarder.log").read_text()
        assert f"prefix group clusters: prefix {OTHER_PREFIX} added\n" in log
    with line_to(lab, OTHER_SHOP) as (client, name):
        assert say(client, "hello") == f"{name} hello"
    counted = [request(lab.node(maglev).control, "GET", "/statistics")["vips"] for maglev in lab.maglevs]
    names = {served["vip"] for each in counted for served in each}
    assert {"shop", "line"} <= names, "counted under one name, whatever the prefix"
    assert processes(lab) == before


def test_the_way_that_a_tracer_packet_reports_is_that_of_the_group(lab):
    lab.document = with_vips(lab, *GROUPED, prefix_groups={"clusters": [OWN_PREFIX, OTHER_PREFIX]})
    lab.reload()
    lab.wait_converged()
    done = lab.run("c1", f"PYTHONPATH=. .venv/bin/python -m maglev trace {OTHER_SHOP} 80 --json")
    [hop] = [hop for passage in json.loads(done.stdout)["passages"] for hop in passage["hops"]]
    assert hop["vip"] == "shop"
    assert lab.trace("c1", "shop").endpoint in lab.endpoints


@contextlib.contextmanager
def line_to(lab, address):
    """A connection of the client that goes on, and the name of the endpoint at its other end."""
    with inside(lab.node("c1")):
        client = socket.create_connection((address, 7), 5.0)
    with client:
        yield client, say(client, "who").removesuffix(" who")


def say(client, text):
    client.sendall(text.encode() + b"\n")
    return client.makefile().readline().strip()


def test_a_vip_that_leaves_is_kept_while_connections_are_open_there(lab):
    """Maglevs may go on sending there for a while: here they do, since they serve what was pushed."""
    document = with_vips(lab, *GROUPED, prefix_groups={"clusters": [OWN_PREFIX]})
    write(lab, document)
    wait_answered(lab, OWN_SHOP)
    with line_to(lab, OWN_SHOP) as (client, name):
        write(lab, lab.document)
        wait_until(lambda: "" if leaving(lab, name) == OWN_SHOP else "not said", TIMEOUT_S, "the VIP's leaving")
        for maglev in lab.maglevs:
            wait_until(lambda maglev=maglev: "" if is_unserved(lab, maglev) else maglev, TIMEOUT_S, "the new file")
            lab.push(maglev, document)
        assert say(client, "still there?") == f"{name} still there?"
        others = [each for each in lab.endpoints if each != name]
        wait_until(lambda: "; ".join(left for each in others if (left := leaving(lab, each))), TIMEOUT_S, "others")
        assert say(client, "and now?") == f"{name} and now?", "others have let go of it, for want of connections"
    wait_until(lambda: leaving(lab, name), TIMEOUT_S, "the VIP to be let go when its last connection is closed")
    assert "192.0.2.67" not in lab.run(name, "ip -brief address show lo").stdout
    assert "let go of 192.0.2.67\n" in (lab.node(name).directory / "endpoint.log").read_text()


def is_unserved(lab, maglev):
    return OWN_SHOP not in status(lab, maglev)["vips"]


def test_a_bad_file_changes_nothing_at_an_endpoint_and_the_next_good_one_counts(lab):
    held = status(lab, "s1")["vips"]
    write(lab, with_vips(lab, {**NEW, "pool": "wbe"}))
    wait_until(lambda: "" if status(lab, "s1")["config"]["refused"] else "no refusal", TIMEOUT_S, "a refusal")
    refused = status(lab, "s1")["config"]["refused"]
    assert "vips[6].pool: 'wbe' is not allowed; allowed: the name of a pool: web" in refused
    assert (
        f"endpoint 10.2.1.2: configuration kept as it was: {refused}\n"
        in (lab.node("s1").directory / "endpoint.log").read_text()
    )
    assert status(lab, "s1")["vips"] == held
    write(lab, {**with_vips(lab, NEW), "metrics": {"port": 9401}})
    wait_until(lambda: "" if "metrics.port" in status(lab, "s1")["config"]["refused"] else "none", TIMEOUT_S, "another")
    write(lab, with_vips(lab, NEW))
    wait_answered(lab, NEW["address"])
    assert status(lab, "s1")["config"]["refused"] == ""


def test_an_endpoint_reads_its_file_on_sighup(lab):
    """Where a file cannot be watched, as on some network file systems: here it is hidden behind a mount."""
    node = lab.node("s1")
    daemon = node.daemons["endpoint"]
    changed = lab.directory / "changed.yaml"
    write_config(changed, with_vips(lab, NEW))
    lab.run("s1", f"mount --bind {changed} {lab.directory / CONFIG}")
    try:
        lab.run("s1", f"kill -HUP {daemon.pid}")
        wait_until(
            lambda: "" if NEW["address"] in status(lab, "s1")["vips"] else str(status(lab, "s1")["vips"]),
            TIMEOUT_S,
            "the VIP of the file behind the mount",
        )
    finally:
        lab.run("s1", f"umount {lab.directory / CONFIG}")
