"""What a machine looks like before a lab and after it; and every process that ever came of one.

The test's process becomes the subreaper of its descendants (prctl(2)): whoever loses its parent becomes a child of
ours. So what is left of a lab is found however well it hides, with or without its id, and nothing else is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.site import RUN_DIRECTORY

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PLACES = ("/run", "/tmp", "/dev/shm", "/var/run/netns", "/var/tmp")
# Other users of the machine make files and cgroups all the time: of these we look at what a lab's programs would make.
# The rest of what they do with temporary files is seen in a TMPDIR of the lab's own.
TELLING = re.compile(r"mag|mn|mininet|exabgp|bird|tcpdump|numba|rack-|netns")
RESTLESS = ("nf_conntrack_count", "nf_conntrack_buckets")


@contextlib.contextmanager
def reaping() -> Iterator[None]:
    """Makes this process the subreaper of its descendants meanwhile."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def survivors(known: set[int]) -> list[str]:
    """Returns the living children of this process but those known, in words; the dead among them are reaped."""
    for child in _children():
        if child not in known:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
    return [f"{child} {_name(child)}" for child in _children() if child not in known]


def end_survivors(known: set[int]) -> None:
    """Kills what a failed test leaves to us."""
    while left := [child for child in _children() if child not in known]:
        for child in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def _name(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    return "?"


@dataclass(frozen=True)
class Machine:
    """What a lab could change outside its namespaces."""

    links: str
    namespaces: str
    addresses_and_routes: str
    rules: str
    firewall: str
    mounts: str
    sockets: frozenset[str]  # that listen in the machine's own network, and those with a path
    files: frozenset[str]
    cgroups: frozenset[str]
    sysctls: frozenset[tuple[str, str]]

    @staticmethod
    def now() -> Machine:
        return Machine(
            links=_said("ip", "-j", "-d", "link"),
            namespaces=_said("ip", "-j", "netns"),
            addresses_and_routes=_said("ip", "address") + _said("ip", "route", "show", "table", "all"),
            rules=_said("ip", "rule") + _said("ip", "-6", "rule"),
            firewall=_said("nft", "list", "ruleset"),
            mounts=Path("/proc/self/mounts").read_text(),
            sockets=_sockets(),
            files=_telling(path for place in PLACES if Path(place).is_dir() for path in Path(place).iterdir()),
            cgroups=_telling(path for path in Path("/sys/fs/cgroup").rglob("*") if path.is_dir()),
            sysctls=frozenset(_sysctls()),
        )

    def differences(self, later: Machine) -> list[str]:
        """Returns what is otherwise later, in words; of sets only what has come."""
        found = []
        for name in self.__dataclass_fields__:
            before, after = getattr(self, name), getattr(later, name)
            if isinstance(before, frozenset):
                found += [f"{name}: {new} has come" for new in sorted(after - before)]
            elif before != after:
                found.append(f"{name} were {before}, are {after}")
        return found


def _telling(paths: Iterable[Path]) -> frozenset[str]:
    return frozenset(str(path) for path in paths if TELLING.search(path.name) and not _is_others(path))


def _is_others(path: Path) -> bool:
    """Says whether it is the directory of labs, in which there is one: of others, for ours is asked after by its id."""
    return path == RUN_DIRECTORY and path.is_dir() and any(path.iterdir())


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _sockets() -> frozenset[str]:
    listening = _said("ss", "-Hltun").splitlines()
    bound = [line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    return frozenset([" ".join(line.split()[:1] + line.split()[4:5]) for line in listening] + bound)


def _sysctls() -> Iterator[tuple[str, str]]:
    for path in [*Path("/proc/sys/net").rglob("*"), *Path("/proc/sys/vm").iterdir()]:
        if path.is_file() and path.name not in RESTLESS:
            with contextlib.suppress(OSError, UnicodeDecodeError):  # some can only be written
                yield str(path), path.read_text()
