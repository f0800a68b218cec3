"""Fragments of one datagram go to several Maglevs, and come together at their owner (Maglev §4.3)."""

from __future__ import annotations

import pytest
from wires import status

from lab import verify

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=3)

DATAGRAMS = {"flows": 16, "rate_pps": 60, "seconds": 2.0, "size_bytes": 8000, "first_port": 40_000}


def fragments_by_maglev(lab):
    """How many packets to VIPs the router's kernel sent to each Maglev."""
    return dict(lab.snapshot().routers["r1"].packets_to)


@pytest.mark.parametrize("vip", ["datagrams", "datagrams6"])
def test_sprayed_fragments_arrive_whole(lab, vip):
    with lab.traffic.datagrams(vip, **DATAGRAMS) as first:  # by IPv6, endpoints learn the path's MTU from what is lost
        first.wait()
    with lab.spray_fragments("r1"):
        before = fragments_by_maglev(lab)
        with lab.traffic.datagrams(vip, **DATAGRAMS) as datagrams:
            datagrams.wait()
        report = datagrams.report()
        verdict = verify.nothing_lost(report)
        assert verdict, verdict
        assert report.endpoint_changes == 0
        counts = [count - before[maglev] for maglev, count in fragments_by_maglev(lab).items()]
    assert min(counts) > 0.9 * max(counts), f"each Maglev should have got as many fragments, but they got {counts}"
    assert sum(counts) >= 6 * report.sent, "8,000 bytes are six fragments at 1,500"


def test_without_owners_they_are_lost(lab):
    """Each Maglev thinks that it is alone, and waits for what goes to others: what the test above would show."""
    for maglev in lab.maglevs:
        own = [each for each in lab.document["maglevs"] if each["name"] == maglev]
        lab.push(maglev, {**lab.document, "maglevs": own})
    try:
        with lab.spray_fragments("r1"), lab.traffic.datagrams(**DATAGRAMS) as datagrams:
            datagrams.wait()
        assert datagrams.report().received == 0
    finally:
        lab.reload()


def test_nothing_of_it_stays(lab):
    look = "nft list tables; for v in -4 -6; do ip $v rule; ip $v route show table all | grep -c .; done"
    before = lab.run("r1", look).stdout
    with lab.spray_fragments("r1"):
        assert lab.run("r1", look).stdout != before
    assert lab.run("r1", look).stdout == before
    assert {status(lab, maglev)["ready"] for maglev in lab.maglevs} == {True}
