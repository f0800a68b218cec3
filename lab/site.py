"""Where a running lab keeps what is its own: an id, a directory, a ledger.

Everything that a lab starts carries the lab's id in its environment and is entered in the ledger, so that clean-up
can take away that and nothing else, even after the lab itself was killed. Files elsewhere than in its directory are
entered before they are made. Interfaces, bridges and namespaces need no entry: they live in unnamed namespaces and go
with the last process in them. A lab makes no cgroup, and sets nothing outside its namespaces.

Only the standard library: `mn` runs this with the distribution's own Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RUN_DIRECTORY = Path("/run/maglab")
ID_VARIABLE = "MAGLAB_ID"
LEDGER = "ledger.jsonl"
KEPT = "kept"  # in the directory of a lab that lives on without an owner, because somebody wants to look at it


@dataclass(frozen=True)
class Process:
    """A process, told from a later one with the same number by the time of its start."""

    pid: int
    start_ticks: int  # clock ticks after boot: field 22 of /proc/PID/stat
    what: str

    @staticmethod
    def of(pid: int, what: str) -> Process:
        """Returns the process that has this number now."""
        return Process(pid, _start_ticks(pid) or 0, what)

    @property
    def alive(self) -> bool:
        """Says whether it still runs; a zombie does not."""
        return _start_ticks(self.pid) == self.start_ticks

    def kill(self) -> None:
        """Kills it at once, if it still is the process that it was."""
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(self.pid)  # from here on the number cannot pass to another process
            try:
                if self.alive:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


class Site:
    """One lab's directory, id and ledger."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.id = directory.name
        self.variables: dict[str, str] = {}  # what else this lab's processes find in their environment
        self.nursery: Any = None  # the lab's `nursery.Nursery`, once there is one

    @classmethod
    def create(cls, topology: str, identity: str = "") -> Site:
        """Makes the directory of a new lab, owned by this process; its id is new unless it is given one."""
        with _registered():
            site = cls(RUN_DIRECTORY / (identity or f"{topology}-{secrets.token_hex(3)}"))
            site.directory.mkdir(mode=0o755)
            site.enter(Process.of(os.getpid(), "owner"))
        return site

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment of everything that this lab starts."""
        return {**os.environ, **self.variables, ID_VARIABLE: self.id}

    def enter(self, process: Process) -> None:
        """Enters a process in the ledger."""
        self._write(asdict(process))

    def enter_path(self, path: Path) -> None:
        """Enters a file or a directory outside the lab's own, which is about to be made and goes with the lab."""
        self._write({"path": str(path.absolute())})

    def _write(self, entry: dict[str, Any]) -> None:
        with open(self.directory / LEDGER, "a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(entry) + "\n")

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Yields what was entered so far; a line cut short by a crash is passed over."""
        with contextlib.suppress(FileNotFoundError):
            for line in (self.directory / LEDGER).read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def ledger(self) -> list[Process]:
        """Returns every process entered so far, dead or alive."""
        entries = []
        for entry in self._entries():
            with contextlib.suppress(TypeError):
                entries.append(Process(**entry))
        return entries

    def paths(self) -> list[Path]:
        """Returns the files and directories outside the lab's own that were entered, be they there or not."""
        return [Path(entry["path"]) for entry in self._entries() if "path" in entry]

    @property
    def owner(self) -> Process | None:
        """Returns the process that made this lab, None if it died before it said so."""
        return next((entry for entry in self.ledger() if entry.what == "owner"), None)

    @property
    def is_owned(self) -> bool:
        """Says whether the process that made this lab still runs."""
        return self.owner is not None and self.owner.alive

    @property
    def is_kept(self) -> bool:
        """Says whether this lab is to live on without its owner."""
        return (self.directory / KEPT).exists()

    def keep(self) -> None:
        """Has this lab live on without its owner, until it is cleaned by its id."""
        (self.directory / KEPT).touch()

    def processes(self) -> list[Process]:
        """Returns this lab's living processes but its owner: those in the ledger, and those that carry its id."""
        entered = [entry for entry in self.ledger() if entry.what != "owner" and entry.alive]
        known = {entry.pid for entry in entered} | {os.getpid()}
        return entered + [process for process in _carriers(ID_VARIABLE, self.id) if process.pid not in known]

    def clean(self, deadline_s: float = 5.0) -> int:
        """Kills this lab's processes and removes its files; returns how many processes there were."""
        killed = _kill(self.processes, deadline_s)
        for path in self.paths():
            _remove(path)
        with _registered():
            _remove(self.directory)
            with contextlib.suppress(OSError):
                RUN_DIRECTORY.rmdir()  # only when this was the last lab
        return killed


def _remove(path: Path) -> None:
    """Removes a file, or a directory with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def _registered() -> Iterator[None]:
    """Keeps other processes from making, listing and removing labs meanwhile; the kernel ends that if we die.

    Otherwise a clean-up could take a lab for dead whose owner has not yet said that it is.
    """
    while True:
        RUN_DIRECTORY.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            handle = os.open(RUN_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # the last lab went between the two
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_same(handle):
                yield
                return
        finally:
            os.close(handle)


def _is_same(handle: int) -> bool:
    """Says whether an open directory is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(RUN_DIRECTORY))
    except FileNotFoundError:
        return False


def sites() -> list[Site]:
    """Returns all labs that left a directory, running or not."""
    if not RUN_DIRECTORY.exists():
        return []
    with _registered():
        found = [Site(path) for path in sorted(RUN_DIRECTORY.iterdir()) if path.is_dir()]
        if not found:
            with contextlib.suppress(OSError):
                RUN_DIRECTORY.rmdir()  # what a lab left that was killed before it began
    return found


def _start_ticks(pid: int) -> int | None:
    """Returns when a process started, None if there is none or only its zombie (proc(5))."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])


def end_all(variable: str, value: str, deadline_s: float = 5.0) -> None:
    """Kills all processes that were started with this in their environment, and what they start meanwhile."""
    _kill(lambda: [each for each in _carriers(variable, value) if each.alive], deadline_s)


def _kill(look: Callable[[], list[Process]], deadline_s: float) -> int:
    """Kills whom one finds who looks for them, until there is nobody; returns how many there were.

    One that ends while all are looked through may have a child that is not among them: so twice nobody is nobody.
    """
    killed = set()
    give_up = time.monotonic() + deadline_s
    in_vain = 0
    while in_vain < 2 and time.monotonic() < give_up:
        living = look()
        in_vain = 0 if living else in_vain + 1
        for process in living:
            process.kill()
            killed.add(process.pid)
        time.sleep(0.005)
    return len(killed)


def _carriers(variable: str, value: str) -> Iterator[Process]:
    """Yields the processes that were started with this in their environment."""
    marker = f"{variable}={value}".encode()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if marker in Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0"):
                    yield Process.of(int(entry.name), "found by its id")
