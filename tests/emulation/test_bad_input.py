"""`maglab up` with what cannot be, or cannot be here: a sentence, exit status 2, and a machine that is as before.

Programs are really missing: in a mount namespace of the command's own, something else is mounted over them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from aftermath import end_survivors, reaping, survivors
from commands import MAGLAB, Machine, labs_of

from lab.frr import PROGRAMS
from lab.nodes import PATH, ROOT
from lab.sdn_router import RYU_PYTHON
from lab.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a lab makes network namespaces, which only root may do")

TIMEOUT_S = 60.0
WRONG_USE, NO_LAB = 2, 3
NOTHING, DEAD = "/dev/null", "/bin/false"  # mounted over a program: it is none; it ends at once
READ_ONLY = "read-only"  # a directory is mounted over itself, as containers have /proc/sys


def found(program: str) -> str:
    return os.path.realpath(shutil.which(program, path=PATH) or program)


def up(arguments: str, over: str = "", mounted: str = "") -> tuple[int, str]:
    """Runs `maglab up`, with something mounted over a program or a directory; returns its status and its complaint.

    Nothing may be left of it: no process, no lab, no link, no namespace, no mount.
    """
    before = Machine.now()
    with reaping():
        known = {int(each.split()[0]) for each in survivors(set())}
        command = [
            "unshare",
            "-m",
            "sh",
            "-c",
            _mounting(over, mounted) + shlex.join([*MAGLAB, "up"]) + " " + arguments,
        ]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            _, complaint = process.communicate(timeout=TIMEOUT_S)
        try:
            wait_until(lambda: ", ".join(survivors(known)), 5.0, "the end of all that was started")
        finally:
            end_survivors(known)
    assert labs_of(process.pid) == []
    assert Machine.now() == before
    return process.returncode, complaint


def _mounting(over: str, mounted: str) -> str:
    if not over:
        return "exec "
    if mounted == READ_ONLY:
        mount = f"mount --bind {over} {over} && mount -o remount,bind,ro {over}"
    else:
        mount = f"mount -t tmpfs none {over}" if Path(over).is_dir() else f"mount --bind {mounted} {over}"
    return f"{mount} && exec "


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("ring", "maglab: there is no topology 'ring'; there are lan, pod, rack, "),
        (
            "rack --maglevs 0",
            "maglab: topology rack: maglevs=0 is not allowed; allowed: a whole number from 1 to 128\n",
        ),
        (
            "rack --set colour=red",
            "maglab: topology rack takes no 'colour'; it takes maglevs, endpoints, clients, routers",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence_and_nothing_is_left(arguments, said):
    status, complaint = up(arguments)
    assert complaint.startswith(said), complaint
    assert complaint.count("\n") == 1, complaint
    assert status == WRONG_USE


@pytest.mark.parametrize(
    ("arguments", "over", "mounted", "said"),
    [
        ("rack", found("bird"), NOTHING, "BIRD is not installed: run make setup"),
        (
            "rack",
            "/proc/sys",
            READ_ONLY,
            "/proc/sys is read-only, as in a container: give it --security-opt systempaths",
        ),
        ("pod --set router=frr", str(PROGRAMS), "", "FRR is not installed, which router=frr asks for"),
        ("rack --set router=frr", f"{PROGRAMS}/zebra", DEAD, "r1's FRR does not run: zebra says: nothing"),
        ("sdn", str(RYU_PYTHON.parents[1]), "", "Ryu's environment .venv-ryu is not there: run make setup"),
        ("sdn", found("ovs-vswitchd"), NOTHING, "Open vSwitch's ovs-vswitchd is not installed: run make setup"),
        ("sdn", found("ovs-vswitchd"), DEAD, "r1's Open vSwitch does not run: vswitchd says: nothing"),
        ("sdn", found("ovsdb-server"), DEAD, "r1's Open vSwitch does not run: ovsdb says: nothing"),
    ],
)
def test_what_this_machine_lacks_is_said_in_a_sentence_and_nothing_is_left(arguments, over, mounted, said):
    if not Path(over).exists():
        pytest.skip(f"{over} is missing here already")
    status, complaint = up(arguments, over, mounted)
    assert said in complaint, complaint
    assert complaint.count("\n") == 1, complaint
    assert status == WRONG_USE


def test_doctor_says_what_a_container_needs():
    """As Docker starts one that was only given capabilities: without devices, and with /proc/sys read-only."""
    changed = _mounting("/proc/sys", READ_ONLY).replace("exec ", f"mount --bind {NOTHING} /dev/net/tun && exec ")
    command = ["unshare", "-m", "sh", "-c", changed + shlex.join([*MAGLAB, "doctor"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    told = " ".join(done.stdout.split())
    assert done.returncode == NO_LAB, told
    for way_out in ("--security-opt systempaths=unconfined", "--device /dev/net/tun"):
        assert way_out in told
