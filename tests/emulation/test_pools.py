"""Pools in the rack: a backup that takes over and gives back, endpoints in several pools, weights, client affinity."""

from __future__ import annotations

import copy
import socket

import pytest
from settling import as_configured
from wires import VIP, open_on, status

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=4)

TIMEOUT_S = 20.0
CONNECTIONS = 60


@pytest.fixture
def changed(lab):
    """Returns a function that changes the lab's configuration until the test's end."""

    def change(edit):
        edit(lab.document)
        lab.reload()

    with as_configured(lab):
        yield change
    lab.restore()


def vip_named(document, name):
    return next(vip for vip in document["vips"] if vip["name"] == name)


def split_pool(document):
    """The first two endpoints serve; the other two do when fewer than 60 % of these are healthy."""
    first, second = (copy.deepcopy(document["pools"]["web"]) for _ in range(2))
    first["endpoints"], second["endpoints"] = first["endpoints"][:2], second["endpoints"][2:]
    document["pools"] |= {"first": first, "second": second}
    vip_named(document, "echo").update(pool="first", backup_pools=["second"], min_healthy_share=0.6)


def wait_served_by(lab, pool):
    def missing():
        found = {maglev: status(lab, maglev)["served_by"]["echo"] for maglev in lab.maglevs}
        return "" if set(found.values()) == {pool} else f"served by {found}"

    wait_until(missing, TIMEOUT_S, f"the VIP served by {pool}")


def endpoints_of(conns):
    return [connection.endpoint for connection in conns.all() if connection.fate == "alive"]


def test_a_backup_pool_takes_over_and_gives_back_and_keeps_what_it_has(lab, changed):
    changed(split_pool)
    wait_served_by(lab, "first")
    with lab.connections(CONNECTIONS) as first:
        first.wait_settled()
        assert set(endpoints_of(first)) == {"s1", "s2"}, "at first the first pool serves"
        lab.kill("s1")
        wait_served_by(lab, "second")
        with lab.connections(CONNECTIONS) as second:
            second.wait_settled()
            assert set(endpoints_of(second)) == {"s3", "s4"}, "then the second takes new connections"
            on_s2 = [each for each in first.all() if each.endpoint == "s2"]
            assert not [each for each in on_s2 if each.is_broken], "those of s2, which is well, go on"
            lab.revive("s1")
            wait_served_by(lab, "first")
            with lab.connections(CONNECTIONS) as third:
                third.wait_settled()
                assert set(endpoints_of(third)) == {"s1", "s2"}, "new ones come to the first pool again"
            second.wait_settled()
            assert second.broken == 0, f"connections to the second pool should have stayed: {second.report()}"


def test_weights_move_shares(lab, changed):
    """3 : 1 : 1 : 1 of new connections, as the table says to within 1 %; the sample is small, so within 4 sigma."""

    def weigh(document):
        document["pools"]["web"]["endpoints"][0]["weight"] = 3

    changed(weigh)
    lab.wait_converged()
    tables = status(lab, "m1")["pools"]["web"]
    assert len(tables["healthy"]) == 4
    with lab.connections(300) as conns:
        conns.wait_settled()
        share = endpoints_of(conns).count("s1") / 300
    assert abs(share - 0.5) < 4 * (0.25 / 300) ** 0.5, f"half should have come to s1, but {share:.0%}"


def who_answers(lab, port, protocol):
    """Which endpoint answers a new flow of the client."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with open_on(lab.node("c1"), socket.AF_INET, kind) as client:
        client.settimeout(5.0)
        client.connect((VIP, port))
        client.sendall(b"who?\n")
        return client.recv(100).split()[0].decode()


def test_with_client_affinity_all_flows_of_a_client_meet_one_endpoint(lab, changed):
    """Over TCP and UDP, VIPs that share address and pool; without it the same flows meet all endpoints."""
    without = {who_answers(lab, 7, protocol) for protocol in ("tcp", "udp") for _ in range(30)}
    assert len(without) == 4, f"without affinity flows should be spread, but met only {without}"

    def stick(document):
        for name in ("echo", "datagrams"):
            vip_named(document, name)["affinity"] = "client"

    changed(stick)
    found = {who_answers(lab, 7, protocol) for protocol in ("tcp", "udp") for _ in range(30)}
    assert len(found) == 1, f"all flows of the client should meet one endpoint, but met {found}"
