"""The command `maglab` and other owners of labs as processes of their own, and what a lab leaves on the machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lab.nodes import ROOT
from lab.site import ID_VARIABLE, RUN_DIRECTORY, sites
from lab.waiting import wait_until

_installed = ROOT / ".venv" / "bin" / "maglab"
MAGLAB = [str(_installed)] if _installed.exists() else [sys.executable, "-c", "from lab.cli import main; main()"]
OWNER = """
import sys
from lab import Lab
lab = Lab("rack", maglevs=2, endpoints=2).start()
print(lab.id, flush=True)
sys.stdin.read()
"""
TIMEOUT_S = 30.0

Networks = dict[int, BinaryIO]  # namespaces by their numbers, held open


def maglab(*arguments: str, timeout_s: float = 120.0, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `maglab` from the project's directory; `text` is typed into it."""
    command = [*MAGLAB, *arguments]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)


def _heed_interrupts() -> None:
    """Undoes what a process in the background of a script inherits: Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def started(command: Sequence[str], **pipes: int) -> Iterator[subprocess.Popen[str]]:
    """Runs a command in a process group of its own, as a shell does, and kills it at the end if it still runs."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    options = {"cwd": ROOT, "text": True, "start_new_session": True, "preexec_fn": _heed_interrupts}
    with subprocess.Popen(command, **options, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Reads a process's output up to the line that holds a word; AssertionError if the process ends before."""
    read = []
    assert process.stdout is not None
    for line in process.stdout:
        read.append(line)
        if word in line:
            return "".join(read)
    raise AssertionError(f"expected a line with {word!r}, the process ended after: {''.join(read)}")


def labs_of(pid: int) -> list[str]:
    """Returns the ids of the labs whose owner has, or had, this process id."""
    return [site.id for site in sites() if site.owner is not None and site.owner.pid == pid]


def lab_of(owner: subprocess.Popen[str]) -> str:
    """Returns the id of the lab that a process owns."""
    wait_until(lambda: "" if labs_of(owner.pid) else f"process {owner.pid} owns no lab", TIMEOUT_S, "a lab")
    return labs_of(owner.pid)[0]


class Machine(NamedTuple):
    """What a lab could leave in the machine's own namespaces."""

    links: frozenset[str]
    namespaces: str
    mounts: str

    @staticmethod
    def now() -> Machine:
        links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
        named = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        return Machine(frozenset(link["ifname"] for link in links), named, Path("/proc/self/mounts").read_text())


def networks_of(lab_id: str) -> Networks:
    """Returns the network namespaces, but the machine's own, of all processes that carry a lab's id.

    As long as they are held open, no later namespace gets the same number.
    """
    own, networks = _network(os.getpid()), {}
    for process in carriers(lab_id):
        with contextlib.suppress(OSError):
            held = open(f"/proc/{process}/ns/net", "rb")  # noqa: SIM115
            networks.setdefault(os.fstat(held.fileno()).st_ino, held)
    networks.pop(own, None)
    return networks


def left_of(lab_id: str, networks: Networks) -> list[str]:
    """Returns what there still is of a lab: its directory, who carries its id, who lives in one of its networks."""
    directory = RUN_DIRECTORY / lab_id
    inhabitants = [process for process in _processes() if _network(process) in networks]
    left = {*carriers(lab_id), *inhabitants}
    return [_told(process) for process in sorted(left)] + ([str(directory)] if directory.exists() else [])


def wait_gone(lab_id: str, networks: Networks, before: Machine, timeout_s: float = 5.0) -> None:
    """Waits until nothing is left of a lab, and the machine is as it was before."""

    def missing() -> str:
        if left := left_of(lab_id, networks):
            return f"left of {lab_id}: {', '.join(left)}"
        after = Machine.now()
        return "" if after == before else f"the machine was {before}, it is {after}"

    assert networks, f"the test is void: {lab_id} had no networks"
    wait_until(missing, timeout_s, f"the end of {lab_id}")


def _processes() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def carriers(lab_id: str) -> list[int]:
    marker, found = f"{ID_VARIABLE}={lab_id}".encode(), []
    for process in _processes():
        with contextlib.suppress(OSError):
            if marker in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def _network(process: int) -> int:
    try:
        return os.stat(f"/proc/{process}/ns/net").st_ino
    except OSError:
        return 0


def _told(process: int) -> str:
    try:
        return f"{process} {Path(f'/proc/{process}/comm').read_text().strip()}"
    except OSError:
        return str(process)
