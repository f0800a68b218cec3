"""Labs die at random moments, in whole or in part: after `maglab clean` the machine is as it was.

Four moments by default; MAGLAB_DEATHS=20 tries as many as that, MAGLAB_SEED=N others. Next to all of them runs a plain
Mininet of somebody else, which notices nothing.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aftermath import Machine, _children, end_survivors, reaping, survivors
from commands import lab_of, maglab, read_until, started

from lab.site import RUN_DIRECTORY, Process, Site, sites
from lab.waiting import wait_until

MOMENTS, SEED = int(os.environ.get("MAGLAB_DEATHS", "4")), int(os.environ.get("MAGLAB_SEED", "2016"))
TIMEOUT_S = 30.0
STARTED = 27  # entries of the ledger when the lab below has started everything
VICTIMS = ("owner", "nursery", "daemons", "everything")
# A lab with traffic, faults and a capture, that says all the time that it is there.
OWNER = """
import sys, itertools
from pathlib import Path
from lab import Lab
with Lab("rack", maglevs=2, endpoints=2, clients=1) as lab:
    place = Path(sys.argv[1]) / "captures"
    lab.site.enter_path(place)
    place.mkdir()
    lab.node("r1").popen(["tcpdump", "-i", "any", "-U", "-Z", "root", "-w", str(place / "r1.pcap")])
    with lab.connections(20) as conns:
        for number in itertools.count():
            print("turn", flush=True)
            with lab.kill("m1" if number % 2 else "s1"):
                lab.wait_converged()
            lab.wait_converged()
"""
# Somebody else's network: two hosts and a wire.
OTHERS = """
from mininet.topo import Topo
class Two(Topo):
    def build(self):
        self.addLink(self.addHost("m1"), self.addHost("r1"))
topos = {"two": Two}
"""


@dataclass(frozen=True)
class Death:
    """When a lab dies, and who of it."""

    entries: int  # of the ledger, after which it happens; 0: in the middle of traffic, after some turns
    turns: int
    victim: str
    seed: int

    def __str__(self) -> str:
        when = f"after_{self.entries}_entries" if self.entries else f"in_turn_{self.turns}"
        return f"{self.victim}_{when}"


def deaths() -> list[Death]:
    """Two of three while the lab starts, one while it has traffic and faults; every victim in its turn."""
    chance = random.Random(SEED)
    return [
        Death(chance.randint(1, STARTED) if number % 3 else 0, chance.randint(1, 3), victim, chance.getrandbits(32))
        for number, victim in zip(range(MOMENTS), VICTIMS * MOMENTS, strict=False)
    ]


@pytest.fixture(scope="module", autouse=True)
def others(tmp_path_factory) -> Iterator[None]:
    """A plain Mininet next door, whose two hosts are called as a lab's are, and reach each other to the end."""
    custom = tmp_path_factory.mktemp("others") / "two.py"
    custom.write_text(OTHERS)
    mn = ["mn", "--custom", str(custom), "--topo", "two", "--controller", "none"]
    with started(mn, stderr=subprocess.STDOUT) as console:
        read_until(console, "Starting CLI")
        before = _children_of(console.pid)
        yield
        assert _children_of(console.pid) == before, "somebody else's processes are not what they were"
        said, _ = console.communicate("m1 ping -c 1 -W 5 r1\nexit\n", timeout=TIMEOUT_S)
    assert "1 received" in said, said


def _children_of(parent: int) -> list[str]:
    return Path(f"/proc/{parent}/task/{parent}/children").read_text().split()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """The machine before, to which it must return; what comes of the lab is ours to see."""
    known = _children()
    with reaping():
        before = Machine.now()
        yield before
        try:
            wait_until(lambda: _amiss(before, known), TIMEOUT_S, "the machine as it was")
        finally:
            end_survivors(known)


def _amiss(before: Machine, known: set[int]) -> str:
    return ", ".join(survivors(known) or before.differences(Machine.now()))


def _owner(directory: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """Starts a lab whose files, temporary ones as well, belong into a directory."""
    return started(["env", f"TMPDIR={directory}", sys.executable, "-c", OWNER, str(directory)])


def _alive(site: Site) -> list[Process]:
    return [*([site.owner] if site.owner else []), *site.processes()]


def _kill(site: Site, death: Death) -> None:
    chance, living = random.Random(death.seed), _alive(site)
    chosen = {
        "owner": [process for process in living if process.what == "owner"],
        "nursery": [process for process in living if process.what == "nursery"],
        "daemons": chance.sample(living[1:], k=len(living[1:]) // 2),
        "everything": chance.sample(living, k=len(living)),
    }[death.victim]
    for process in chosen:
        process.kill()


def _reach(owner: subprocess.Popen[str], death: Death) -> Site:
    """Waits for the moment at which a lab is to die."""
    site = Site(RUN_DIRECTORY / lab_of(owner))
    if death.entries:
        wait_until(
            lambda: "" if len(site.ledger()) >= death.entries else f"{len(site.ledger())} entries",
            TIMEOUT_S,
            str(death),
        )
    else:
        for _ in range(death.turns):
            read_until(owner, "turn")
    return site


@pytest.mark.parametrize("death", deaths(), ids=str)
def test_clean_leaves_the_machine_as_it_was(death, machine, tmp_path):
    with _owner(tmp_path) as owner:
        site = _reach(owner, death)
        _kill(site, death)
        can_tidy_up = death.victim in ("nursery", "daemons")
        if can_tidy_up and random.Random(death.seed).random() < 0.5:
            os.killpg(owner.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                owner.communicate(timeout=TIMEOUT_S)
        owner.kill()
        owner.wait()
    done = maglab("clean")
    assert done.returncode == 0, done.stderr
    assert site.id not in {left.id for left in sites()}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entries", random.Random(SEED).sample(range(1, STARTED), k=3))
def test_ctrl_c_while_it_starts_leaves_nothing_to_clean(entries, machine, tmp_path):
    with _owner(tmp_path) as owner:
        site = _reach(owner, Death(entries, 0, "owner", 0))
        os.killpg(owner.pid, signal.SIGINT)
        owner.communicate(timeout=TIMEOUT_S)
    assert list(tmp_path.iterdir()) == []
    assert site.id not in {left.id for left in sites()}


def test_a_clean_machine_is_told_from_one_that_is_not(tmp_path):
    """The comparison can fail: a process, a link, a socket and a file are seen."""
    known, before = _children(), Machine.now()
    with reaping():
        assert _amiss(before, known) == ""
        with subprocess.Popen(["sh", "-c", "sleep 1000 & exit"]) as parent:
            parent.wait()
        wait_until(
            lambda: "" if "sleep 1000" in _amiss(before, known) else "not seen", TIMEOUT_S, "the orphan, by name"
        )
        end_survivors(known)
    assert _amiss(before, known) == ""
