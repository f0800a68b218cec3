"""A lab takes away what it made and nothing else, however it ends; and two of them do not meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from commands import MAGLAB, OWNER, Machine, lab_of, left_of, maglab, networks_of, read_until, started, wait_gone
from terminal import Terminal
from wires import VIP

from lab import Lab
from lab.site import RUN_DIRECTORY
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=3)

FEW = 60
QUICKLY_S = 5.0  # the lab is gone within 1 s on an idle machine; a demo that goes on takes over 10 s
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
DEMO = [*MAGLAB, "demo", "--plain", "--connections", str(FEW)]


# Two labs


def test_two_labs_at_once_do_not_disturb_each_other(lab):
    with lab.connections(FEW) as conns:
        before = lab.snapshot()
        with Lab("rack", maglevs=2, endpoints=3) as other, other.connections(FEW) as others:
            assert other.id != lab.id
            other.kill("m1")
            other.power_off("s2")
            other.wait_converged()
            conns.wait_settled()
            assert conns.broken == 0, conns.report()
            others.wait_settled()
            doomed = {connection.name for connection in others.all() if connection.endpoint == "s2"}
            broken = {connection.name for connection in others.all() if connection.is_broken}
            assert broken == doomed, others.report()
            networks, other_id = networks_of(other.id), other.id
        conns.wait_settled()
        assert conns.broken == 0, f"the end of the other lab broke connections: {conns.report()}"
        assert left_of(other_id, networks) == []
        after = lab.snapshot()
        for maglev in lab.maglevs:
            assert after.maglevs[maglev].status["generation"] == before.maglevs[maglev].status["generation"]
    assert lab.wait_converged() >= 0


# Ends that were not planned


def test_clean_takes_away_a_lab_whose_owner_was_killed_and_leaves_a_running_one_alone(lab):
    before = Machine.now()
    with lab.connections(FEW) as conns:
        with started([sys.executable, "-c", OWNER]) as owner:
            dead = read_until(owner, "rack-").strip()
            networks = networks_of(dead)
            owner.kill()
            owner.wait()
        assert left_of(dead, networks), "the test is void: the lab went with its owner"
        done = maglab("clean")
        assert done.returncode == 0, done.stderr
        assert f"{dead}: ended" in done.stdout
        assert "left alone, still running: " in done.stdout
        assert lab.id in done.stdout.partition("left alone")[2]
        wait_gone(dead, networks, before)
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    lab.wait_converged()


def test_clean_with_an_id_ends_a_running_lab_and_its_owner():
    before = Machine.now()
    with started([sys.executable, "-c", OWNER]) as owner:
        running = read_until(owner, "rack-").strip()
        networks = networks_of(running)
        done = maglab("clean", running)
        assert done.returncode == 0, done.stderr
        assert owner.wait(5) == -signal.SIGKILL
    wait_gone(running, networks, before)


def test_clean_refuses_an_id_that_is_not_there():
    done = maglab("clean", "rack-nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no lab 'rack-nobody'" in done.stderr


@pytest.mark.parametrize("moment", ["waiting for BGP", "opening", "kill m1"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_demo_that_is_interrupted_leaves_nothing(moment, number):
    before = Machine.now()
    with started(DEMO) as demo:
        read_until(demo, moment)
        lab_id = lab_of(demo)
        networks = networks_of(lab_id)
        signalled = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(demo.pid, number)  # a terminal's Ctrl-C reaches every process of the group
        else:
            demo.send_signal(number)
        _, complaint = demo.communicate(timeout=60)
        took_s = time.monotonic() - signalled
    assert demo.returncode == INTERRUPTED, complaint
    assert complaint == "maglab: stopped, and everything taken away\n"
    assert took_s < QUICKLY_S, f"it took {took_s:.1f} s"
    wait_gone(lab_id, networks, before)


def test_a_demo_that_is_interrupted_while_it_wires_leaves_nothing():
    before = Machine.now()
    with started(DEMO) as demo:
        read_until(demo, "wiring")
        lab_id = lab_of(demo)
        wait_until(lambda: "" if networks_of(lab_id) else "no node", QUICKLY_S, "the first node")
        networks = networks_of(lab_id)
        os.killpg(demo.pid, signal.SIGINT)
        _, complaint = demo.communicate(timeout=60)
    assert demo.returncode == INTERRUPTED, complaint
    wait_gone(lab_id, networks, before)


def test_impatience_does_not_stop_the_clean_up():
    before = Machine.now()
    with started(DEMO) as demo:
        read_until(demo, "kill m1")
        lab_id = lab_of(demo)
        networks = networks_of(lab_id)
        impatient_until = time.monotonic() + QUICKLY_S
        while demo.poll() is None and time.monotonic() < impatient_until:
            os.killpg(demo.pid, signal.SIGINT)
            time.sleep(0.02)
        demo.communicate(timeout=60)
    wait_gone(lab_id, networks, before)


@pytest.mark.parametrize("begun", ["VIPs: ", "waiting for BGP"])
def test_a_terminal_that_goes_takes_the_lab_with_it(begun):
    """A window is closed, a connection lost: at the console, and while the lab starts."""
    before = Machine.now()
    with Terminal([*MAGLAB, "up", "rack", "--maglevs", "1", "--endpoints", "2", "--clients", "1"]) as terminal:
        terminal.wait_for(begun)
        lab = lab_of(terminal.process)
        networks = networks_of(lab)
        terminal.hang_up()
        assert terminal.process.wait(60) == INTERRUPTED
    wait_gone(lab, networks, before)


# Plain Mininet


def test_the_rack_runs_under_plain_mininet_and_leaves_nothing():
    before, there = Machine.now(), set(RUN_DIRECTORY.glob("mn-*"))
    mn = ["mn", "--custom", "topologies/rack.py", "--topo", "rack,maglevs=2,endpoints=2"]
    retry = "--retry 40 --retry-delay 1 --retry-all-errors --connect-timeout 1"
    with started(mn, stderr=subprocess.STDOUT) as console:
        read_until(console, "Starting CLI")
        lab_id = lab_of(console)
        networks = networks_of(lab_id)
        answer, _ = console.communicate(f"c1 curl -s {retry} http://{VIP}/\nexit\n", timeout=120)
    assert console.returncode == 0, answer
    assert any(f"s{number} answers 10.0.1.2" in answer for number in (1, 2)), answer
    wait_gone(lab_id, networks, before)
    assert set(RUN_DIRECTORY.glob("mn-*")) <= there, "plain Mininet left a directory"
