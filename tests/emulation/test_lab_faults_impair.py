"""Bad links in a running lab, whoever makes them bad: what comes through is what was asked for."""

from __future__ import annotations

import contextlib
import re
import socket
import time

import pytest
from wires import VIP, open_on

from lab.faults import impaired

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=2)

MANY = 1000
DELAY_MS, PRECISE_MS = 20.0, 15.0  # a busy machine is late, never early
RATE_FRAMES, FRAMES_PER_S = 10_000, 4_000  # asked of a busy machine; an idle one carries many times that
SINK = ("10.2.1.2", 9999)
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
TIMEOUT_S = 20.0


def ping(lab, count=MANY, gap_s=0.001, target="10.2.1.2", options=""):
    """What ping from c1 says, once for all."""
    return lab.run("c1", f"ping -q -c {count} -i {gap_s} -W 1 {options} {target}").stdout


def answers(said):
    return int(re.search(r"(\d+) received", said)[1])


def round_trip_ms(said):
    """(least, mean, deviation) of round trips."""
    least, mean, _, deviation = map(float, re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+)", said).groups())
    return least, mean, deviation


def datagrams(lab, payloads, per_second):
    """Sends datagrams from c1 to s1, no faster than that; returns those that arrive, until none comes for a second."""
    with (
        open_on(lab.node("s1"), socket.AF_INET, socket.SOCK_DGRAM) as sink,
        open_on(lab.node("c1"), socket.AF_INET, socket.SOCK_DGRAM) as source,
    ):
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        sink.bind(SINK)
        sink.settimeout(1.0)
        began = time.monotonic()
        for number, payload in enumerate(payloads):
            source.sendto(payload, SINK)
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        arrived = []
        with contextlib.suppress(TimeoutError):
            while len(arrived) < len(payloads):
                arrived.append(sink.recv(2048))
    return arrived


def test_doctor_and_the_lab_agree_about_who_makes_links_bad(lab):
    with lab.impair("r1-c1", delay_ms=1) as fault:
        assert fault.detail["by"] == impaired.means()


def test_a_delay_is_added_in_each_direction_that_was_asked_for(lab):
    plain, _, _ = round_trip_ms(ping(lab, 50))
    for towards, times in ((None, 2), ("c1", 1), ("r1", 1)):
        with lab.impair("c1-r1", towards, delay_ms=DELAY_MS):
            least, _, _ = round_trip_ms(ping(lab, 50))
        assert times * DELAY_MS <= least < plain + times * DELAY_MS + PRECISE_MS, f"towards {towards}: {least} ms"
    assert round_trip_ms(ping(lab, 50))[0] < DELAY_MS, "undone, and still slow"


def test_jitter_scatters_and_reorders(lab):
    with lab.impair("r1-c1", "r1", delay_ms=10, jitter_ms=5):
        said = lab.run("c1", "ping -c 300 -i 0.001 -W 1 10.2.1.2").stdout
        _, _, deviation = round_trip_ms(said)
        order = [int(number) for number in re.findall(r"icmp_seq=(\d+)", said)]
    assert deviation > 0.7 * 10 / 12**0.5, f"{deviation} ms; an even distribution over 10 ms has 2.9 ms"
    assert order != sorted(order)
    assert len(order) == 300


def test_loss_and_duplicates_have_their_shares(lab):
    with lab.impair("r1-c1", "c1", loss=20):
        lost = MANY - answers(ping(lab))
    assert lost == pytest.approx(MANY * 0.2, abs=5 * (MANY * 0.2 * 0.8) ** 0.5)
    with lab.impair("r1-c1", "c1", duplicate=20):
        said = ping(lab)
    doubled = int(re.search(r"\+(\d+) duplicates", said)[1])
    assert answers(said) == MANY
    assert doubled == pytest.approx(MANY * 0.2, abs=5 * (MANY * 0.2 * 0.8) ** 0.5)


def test_corrupted_frames_are_found_by_checksums(lab):
    """Whichever bit is turned, it is in IP's checksum or in UDP's: half of the datagrams arrive, and these whole."""
    payloads = [number.to_bytes(4, "big") * 20 for number in range(MANY)]
    with lab.impair("r1-c1", "r1", corrupt=50):
        arrived = datagrams(lab, payloads, per_second=MANY)
    assert len(arrived) == pytest.approx(MANY / 2, rel=0.2)
    assert set(arrived) <= set(payloads)


def test_a_rate_is_kept(lab):
    with lab.impair("r1-c1", "c1", rate_mbit=8):
        began = time.monotonic()
        size = lab.run("c1", f"curl -s -o /dev/null -w '%{{size_download}}' http://{VIP}/bytes/1M").stdout
        took = time.monotonic() - began
    assert size == "1000000"
    assert 1.0 < took < 2.0, f"8 Mbit took {took:.2f} s at 8 Mbit/s"


def test_a_bad_link_of_a_maglev_is_bad_for_what_it_forwards_and_keeps_every_connection(lab):
    """The forwarder takes and sends packets past the kernel's queueing: the delay must be there all the same."""
    with lab.connections(40) as conns:
        lab.remove_next_hop("r1", "m2")
        for towards, times in (("m1", 1), ("r1", 1), (None, 2)):
            with lab.impair("r1-m1", towards, delay_ms=DELAY_MS):
                lab.wait_converged()
                said = lab.run("c1", f"curl -s -o /dev/null -w '%{{time_connect}}' http://{VIP}/").stdout
            assert times * DELAY_MS <= 1e3 * float(said) < times * DELAY_MS + 4 * PRECISE_MS, f"{said} s to connect"
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


def test_two_bad_links_of_one_router_add_up(lab):
    """What was held on its way in is held again on its way out by another link."""
    with lab.impair("r1-c1", delay_ms=DELAY_MS), lab.impair("r1-s1", "s1", delay_ms=DELAY_MS):
        least, _, _ = round_trip_ms(ping(lab, 50))
    assert 3 * DELAY_MS <= least < 3 * DELAY_MS + 2 * PRECISE_MS


def test_a_bad_link_carries_thousands_of_frames_a_second(lab):
    with lab.impair("r1-c1", "r1", delay_ms=1):
        arrived = datagrams(lab, [bytes(80)] * RATE_FRAMES, per_second=FRAMES_PER_S)
    assert len(arrived) > 0.99 * RATE_FRAMES, f"{len(arrived)} of {RATE_FRAMES} frames came through"
