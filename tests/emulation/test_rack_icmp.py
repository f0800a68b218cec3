"""ICMP at a VIP: errors find the endpoint that serves their flow, and senders learn how large a packet may be.

Both are shown by what fails without them: transfers whose packets do not fit a link on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.packet import Raw
from wires import VIP, Tap, curl, dropped, forwarded, interface_to, is_gre_with, open_on, put_on_wire

from lab.servers import BLOCK
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

CLIENT = "10.0.1.2"
TRANSFERS = 12
BYTES = 2 * 10**6
TIMEOUT_S = 10.0


@contextlib.contextmanager
def mtu(lab, node, other, size_bytes):
    """Has the interface of one node to another carry packets of so many bytes, while the block lasts."""
    interface = interface_to(lab.node(node), other)
    before = lab.run(node, f"cat /sys/class/net/{interface}/mtu").stdout.strip()
    set_to = lambda size: lab.run(node, f"ip link set {interface} mtu {size}")  # noqa: E731
    assert set_to(size_bytes).returncode == 0
    try:
        yield
    finally:
        set_to(before)


@pytest.fixture
def narrow_core(lab):
    """Links behind the router that carry 1,500 bytes and not 1,600: what fills a client's link does not fit in GRE."""
    with contextlib.ExitStack() as undo:
        for node in [*lab.maglevs, *lab.endpoints]:
            undo.enter_context(mtu(lab, node, "r1", 1500))
            undo.enter_context(mtu(lab, "r1", node, 1500))
        yield
    lab.run("c1", "ip route flush cache")


def learnt_mtu(lab, client):
    """The path MTU to the VIP that a client's kernel has learnt, None if it has not."""
    words = lab.run(client, f"ip route get {VIP}").stdout.split()
    return int(words[words.index("mtu") + 1]) if "mtu" in words else None


def test_a_client_learns_how_large_packets_may_be_and_its_transfer_goes_on(lab, narrow_core):
    """1,500 less GRE's 24: the Maglev says so, since it is the one that would have to send 1,524 bytes."""
    assert learnt_mtu(lab, "c1") is None, "at first the client knows nothing"
    body = random.Random(7).randbytes(BYTES)
    file = lab.directory / "upload"
    file.write_bytes(body)
    before = dropped(lab, "too_big")
    answer = curl(lab, "--upload-file", str(file), f"http://{VIP}/upload")
    assert hashlib.sha256(body).hexdigest() in answer, f"all {BYTES} bytes should have arrived, but: {answer}"
    assert learnt_mtu(lab, "c1") == 1476, "the client should have learnt the MTU of the tunnel"
    assert dropped(lab, "too_big") > before, "from packets that did not fit"


def test_errors_about_answers_find_the_endpoint_that_sent_them(lab):
    """The link to the client carries less than it says: the router tells the VIP, and each endpoint must hear it.

    Each transfer is a flow of its own, so all endpoints and all Maglevs have their turn; the router sends its errors by
    a hash of its own, often to another Maglev than the flow's.
    """
    expected = hashlib.sha256((BLOCK * (BYTES // len(BLOCK) + 1))[:BYTES]).hexdigest()
    with mtu(lab, "r1", "c1", 1200):
        for number in range(TRANSFERS):
            done = lab.run("c1", f"curl -s --max-time 20 http://{VIP}/bytes/{BYTES} | sha256sum")
            assert done.stdout.split()[0] == expected, f"transfer {number} should have come through whole"


def an_error(quoted, identification, kind=3, code=4):
    return bytes(
        IP(src="10.0.9.9", dst=VIP, id=identification) / ICMP(type=kind, code=code, nexthopmtu=1300) / Raw(quoted)
    )


def connected(lab):
    """A TCP connection from the client to the VIP, its port, and the endpoint that answers it."""
    connection = open_on(lab.node("c1"), socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    connection.connect((VIP, 7))
    connection.sendall(b"who?\n")
    return connection, connection.getsockname()[1], connection.recv(100).split()[0].decode()


def test_an_error_goes_where_the_flow_goes_whichever_maglev_gets_it(lab):
    with contextlib.ExitStack() as undo:
        for number in range(12):
            connection, port, endpoint = connected(lab)
            undo.enter_context(connection)
            quoted = bytes(IP(src=VIP, dst=CLIENT, len=1500) / TCP(sport=7, dport=port))[:28]
            for place, maglev in enumerate(lab.maglevs):
                packet = an_error(quoted, 1000 + 10 * number + place)
                with Tap(lab.node(endpoint)) as tap:
                    put_on_wire(lab, "r1", maglev, [packet])
                    tap.wait_for(is_gre_with(packet), f"the error about {port}, by {maglev}")


def test_an_error_about_nobodys_flow_goes_nowhere(lab):
    before, sent = dropped(lab, "no_vip_port"), forwarded(lab)
    quoted = bytes(IP(src=VIP, dst=CLIENT) / TCP(sport=81, dport=4000))[:28]
    put_on_wire(lab, "r1", "m1", [an_error(quoted, 2000)])
    counted = lambda: dropped(lab, "no_vip_port") - before  # noqa: E731
    wait_until(lambda: "" if counted() == 1 else f"{counted()} counted", TIMEOUT_S, "the error counted")
    assert forwarded(lab) == sent, "and not forwarded"


def test_a_vip_answers_pings(lab):
    done = lab.run("c2", f"ping -c 5 -i 0.1 -W 2 {VIP}")
    assert " 0% packet loss" in done.stdout, f"every ping should be answered: {done.stdout}"
