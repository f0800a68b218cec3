"""`maglab top` on a terminal of 100 by 30, attached to a lab that runs in another process."""

from __future__ import annotations

import termios

import pytest
from commands import MAGLAB, maglab
from terminal import Terminal

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

RATE_PER_S = 10  # messages on each connection
LEAST_PACKETS_PER_S = (
    100  # of 20 connections: two packets a message go to the Maglevs, on a machine that others use too
)


@pytest.fixture
def top(lab):
    """`maglab top`, with its first picture drawn."""
    with Terminal([*MAGLAB, "top", "--lab", lab.id]) as terminal:
        terminal.wait_for("Maglev", "m1", "endpoint", "s4", "q quits")
        yield terminal


def row(terminal, name):
    """The words of the line that begins with a node's name."""
    return next((line.split() for line in terminal.lines if line.split()[:1] == [name]), [])


def wait_state(terminal, name, state):
    terminal.wait_until(lambda: row(terminal, name)[1:2] == [state], f"{name} {state}")


def test_it_shows_who_serves_and_who_died_and_who_came_back(lab, top):
    for name in ("m1", "m2", "m3"):
        wait_state(top, name, "serving")
    for name in ("s1", "s2", "s3", "s4"):
        wait_state(top, name, "up")
    top.wait_for("r1: 192.0.2.1, 2001:db8::1 -> m1 m2 m3")
    with lab.kill("m1"):
        wait_state(top, "m1", "down")
        top.wait_for("r1: 192.0.2.1, 2001:db8::1 -> m2 m3", "fault: kill m1")
    wait_state(top, "m1", "serving")
    top.wait_for("undone: kill m1", "-> m1 m2 m3")


def test_it_shows_an_endpoint_as_the_maglevs_see_it(lab, top):
    with lab.kill("s2"):
        wait_state(top, "s2", "down")
        assert row(top, "s2")[-1] == "none"
    wait_state(top, "s2", "up")
    with lab.drain("s3"):
        wait_state(top, "s3", "drained")
    wait_state(top, "s3", "up")


def test_rates_and_shares_are_those_of_the_traffic(lab, top):
    def shares(names, at):
        return [int(row(top, name)[at].rstrip("%")) for name in names]

    def is_shown():
        words = [row(top, name) for name in ("m1", "m2", "m3")]
        rates = [int(each[4].replace(",", "")) for each in words]
        flows = [int(each[6].replace(",", "")) for each in words]
        return (
            sum(rates) >= LEAST_PACKETS_PER_S
            and sum(flows) == 20
            and abs(sum(shares(("m1", "m2", "m3"), 3)) - 100) <= 2
        )

    with lab.connections(20, interval_s=1 / RATE_PER_S):
        top.wait_until(is_shown, "rates, 20 flows, and shares that add up")
        assert abs(sum(shares(("s1", "s2", "s3", "s4"), 2)) - 100) <= 2


def test_the_picture_fits_the_terminal_and_every_key_does_what_it_says(top):
    assert len(top.lines) == 30
    assert top.lines[-1].startswith("q quits   p pauses   s sorts"), top.lines
    assert top.lines[0].endswith("by name")
    top.type("s")
    top.wait_for("by packets")
    top.type("s")
    top.wait_for("by drops")
    top.type("p")
    top.wait_for("PAUSED")
    top.type("p")
    top.wait_until(lambda: "PAUSED" not in top.lines[0], "no PAUSED")


def test_counters_are_those_of_the_metrics(lab, top):
    def number(label):
        """What m1's column says, and the others'; -1 where there is nothing yet."""
        line = next((line for line in top.lines if line.startswith(label)), "")
        return [-1 if word == "-" else int(word.replace(",", "")) for word in line.removeprefix(label).split()]

    def generations():
        return [lab.snapshot().maglevs[name].status["generation"] for name in lab.maglevs]

    top.type("c")
    top.wait_for("what Maglevs have counted", "configuration generation", "table: hits")
    top.wait_until(lambda: number("configuration generation") == generations(), "each Maglev's generation")
    top.resize(100, 60)
    with lab.connections(10), lab.traffic.syn_flood("www", rate_pps=50, seconds=1) as flood:
        flood.wait()
        top.wait_for("vip echo: packets", "vip www: bytes", "pool web: packets", "backend s1: packets")
        seen = [lab.snapshot().maglevs[name].statistics["vips"] for name in lab.maglevs]
        told = [sum(each["packets"] for each in vips if each["vip"] == "www") for vips in seen]
        enough = lambda: [shown >= known for shown, known in zip(number("vip www: packets"), told, strict=False)]  # noqa: E731
        top.wait_until(lambda: enough() == [True] * len(told), "the packets of www")
    top.type("c")
    top.wait_for("endpoint", "s4")


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "Ctrl-C"])
def test_it_leaves_the_terminal_as_it_was(top, key):
    top.type(key)
    assert top.wait_end() == 0, top.text
    assert termios.tcgetattr(top._theirs) == top.settings
    assert top.raw.count(b"\x1b[?1049h") == top.raw.count(b"\x1b[?1049l") == 1, "the other screen was not left"
    assert b"\x1b[?25h" in top.raw[top.raw.rindex(b"\x1b[?25l") :], "the cursor is still hidden"
    assert "Traceback" not in top.text


def test_a_terminal_that_is_too_small_is_told_so_until_it_grows(top):
    top.resize(60, 10)
    top.wait_for("this terminal has 60x10; maglab top needs 80x20")
    top.resize(80, 20)
    top.wait_for("Maglev", "m3", "s4", "q quits")


def test_without_a_terminal_it_prints_one_picture(lab):
    done = maglab("top", "--lab", lab.id)
    assert done.returncode == 0, done.stderr
    words = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line.split()[1:]}
    assert {name: words[name] for name in ("m1", "m3", "s1")} == {"m1": "serving", "m3": "serving", "s1": "up"}
    assert "\x1b" not in done.stdout
    assert "q quits" not in done.stdout


def test_a_lab_that_is_not_there_is_told_in_a_sentence():
    done = maglab("top", "--lab", "rack-nobody")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "no lab 'rack-nobody' is running" in done.stderr
