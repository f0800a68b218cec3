"""Fragments through the rack (Maglev §4.3): sprayed over Maglevs by ECMP, brought together at one.

Clients' links carry 1,500 bytes, so what is larger leaves them in fragments. That the Maglevs received fragments, and
not packets that somebody had put together on the way, is read from their own counters.
"""

from __future__ import annotations

import random
import socket

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw
from wires import VIP, dropped, forwarded, open_on, put_on_wire, statistics, status

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

CLIENTS, PORT = {"c1": "10.0.1.2", "c2": "10.0.2.2"}, 7
BY_HAND, BY_KERNEL = CLIENTS  # who sends raw fragments, and whose kernel cuts: it may give a packet any identification
CLIENTS_MTU_BYTES = 1500
TIMEOUT_S = 5.0
HEADERS_BYTES = 28  # IPv4, UDP


@pytest.fixture(autouse=True)
def sprayed(lab):
    """The router deals fragments out in turn: Linux by itself sends all of a datagram to one Maglev."""
    with lab.spray_fragments("r1") as spraying:
        yield spraying


def redirected(lab):
    """How many fragments each Maglev has sent on to another, all together."""
    return sum(each["packets"] for maglev in lab.maglevs for each in statistics(lab, maglev)["redirected"])


def fragments_of(size):
    """How many fragments a datagram of so many bytes is sent in on the client's link."""
    return -(-(size + 8) // ((CLIENTS_MTU_BYTES - 20) // 8 * 8))


class Sender:
    """A UDP socket on a client, and raw fragments of what it might have sent."""

    def __init__(self, lab, client=BY_HAND):
        self.lab, self.client = lab, client
        self.socket = open_on(lab.node(client), socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((CLIENTS[client], 0))
        self.socket.settimeout(TIMEOUT_S)
        self.port = self.socket.getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()

    def pieces(self, payload, identification):
        """The fragments in which a datagram of this socket's flow would come, as Scapy cuts it."""
        whole = (
            IP(src=CLIENTS[self.client], dst=VIP, id=identification) / UDP(sport=self.port, dport=PORT) / Raw(payload)
        )
        return [bytes(piece) for piece in IP(bytes(whole)).fragment(fragsize=1480)]

    def put(self, pieces):
        put_on_wire(self.lab, self.client, "r1", pieces)

    def answer(self):
        """Who answered, and with what; None if nobody did."""
        try:
            name, _, payload = self.socket.recv(65536).partition(b" ")
        except TimeoutError:
            return None
        return name.decode(), payload


@pytest.fixture
def sender(lab):
    with Sender(lab) as sender:
        yield sender


@pytest.fixture
def datagrams(lab):
    with Sender(lab, BY_KERNEL) as sender:
        yield sender


@pytest.mark.parametrize("size", [2000, 8000, 60_000])
def test_a_large_datagram_is_answered_whole(lab, datagrams, size):
    """So many datagrams of one flow that ECMP would have shown a wrong choice; every one comes to the same endpoint."""
    before, who = (forwarded(lab), redirected(lab)), set()
    for number in range(20):
        payload = random.Random(number).randbytes(size)
        datagrams.socket.sendto(payload, (VIP, PORT))
        found = datagrams.answer()
        assert found is not None, f"datagram {number} of {size} bytes should have been answered"
        assert found[1] == payload, "with what it held"
        who.add(found[0])
    assert len(who) == 1, f"all datagrams of a flow should go to one endpoint, but went to {sorted(who)}"
    grown = forwarded(lab) - before[0]
    assert grown >= 20 * fragments_of(size), (
        f"each fragment should have been forwarded by itself, but only {grown} were"
    )


def test_fragments_of_different_flows_meet_different_owners_and_endpoints(lab):
    before, endpoints = redirected(lab), set()
    for _ in range(60):
        with Sender(lab, BY_KERNEL) as sender:
            sender.socket.sendto(bytes(3000), (VIP, PORT))
            found = sender.answer()
            assert found is not None, "each datagram should be answered"
            endpoints.add(found[0])
    assert endpoints == set(lab.endpoints), f"all endpoints should have been met, but only {sorted(endpoints)}"
    assert redirected(lab) > before, "fragments that came to another Maglev than their owner should have been sent on"


def test_a_large_ping_is_answered(lab):
    done = lab.run("c1", f"ping -c 10 -i 0.05 -W 3 -s 8000 {VIP}")
    assert " 0% packet loss" in done.stdout, f"every ping of 8,000 bytes should be answered: {done.stdout}"


def test_fragments_may_come_in_any_order(lab, sender):
    payload = random.Random(1).randbytes(9000)
    orders = {
        "reversed": lambda pieces: pieces[::-1],
        "the first last": lambda pieces: pieces[1:] + pieces[:1],
        "shuffled": lambda pieces: random.Random(2).sample(pieces, len(pieces)),
        "each twice": lambda pieces: [piece for piece in pieces for _ in range(2)],
    }
    for number, (name, order) in enumerate(orders.items()):
        sender.put(order(sender.pieces(payload, 100 + number)))
        found = sender.answer()
        assert found is not None, f"{name}: the datagram should be answered"
        assert found[1] == payload, f"{name}: with what it held"


def test_overlapping_fragments_reach_one_endpoint_and_hurt_nobody(lab, sender):
    """Linux drops a packet whose fragments overlap (RFC 5722); the next one of the flow is answered as ever."""
    pieces = sender.pieces(bytes(4000), 200)
    overlapping = IP(pieces[1])
    overlapping.frag -= 2
    del overlapping.chksum
    before = forwarded(lab)
    sender.put([pieces[0], bytes(overlapping), *pieces[1:]])
    grown = lambda: forwarded(lab) - before  # noqa: E731
    wait_until(lambda: "" if grown() == 4 else f"{grown()} of 4 forwarded", TIMEOUT_S, "four fragments forwarded")
    sender.socket.sendto(b"still there", (VIP, PORT))
    found = sender.answer()
    assert found is not None, "the next datagram of the flow should be answered"
    assert found[1] == b"still there"


def test_fragments_that_wait_in_vain_are_counted(lab, sender):
    before = dropped(lab, "fragment_expired")
    sender.put(sender.pieces(bytes(6000), 300)[1:])
    counted = lambda: dropped(lab, "fragment_expired") - before  # noqa: E731
    timeout_s = lab.config.forwarder.fragments.timeout_s + TIMEOUT_S
    wait_until(lambda: "" if counted() == 4 else f"{counted()} of 4 expired", timeout_s, "four fragments given up")


def test_a_fragment_is_redirected_only_once(lab, sender):
    """Every fragment is forwarded to an endpoint by exactly one Maglev, whatever way it took."""
    for number in range(10):
        sent_on, before = redirected(lab), forwarded(lab)
        sender.put(sender.pieces(bytes(4000), 400 + number))
        assert sender.answer() is not None
        assert forwarded(lab) - before == 3, "three fragments should have been forwarded to the endpoint"
        assert redirected(lab) - sent_on <= 3, "and none have been sent on twice"


def test_the_owner_that_dies_is_replaced(lab, sprayed):
    sprayed.undo()
    with lab.kill("m2"), lab.spray_fragments("r1", ["m1", "m3"]):
        lab.wait_converged()
        alive = [maglev for maglev in lab.maglevs if maglev != "m2"]
        m2 = lab.node("m2").address
        gone = lambda: [m for m in alive if m2 in status(lab, m)["peers"]]  # noqa: E731
        wait_until(lambda: f"{gone()} still think that m2 is alive" if gone() else "", 10.0, "m2 known to be dead")
        for number in range(30):
            with Sender(lab, BY_KERNEL) as sender:
                sender.socket.sendto(bytes(5000), (VIP, PORT))
                assert sender.answer() is not None, f"datagram {number} should be answered while m2 is dead"
    lab.wait_converged()
