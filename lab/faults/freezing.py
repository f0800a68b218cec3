"""What stands still: processes that are stopped, and packet threads that are held up while their process goes on.

A process is stopped by SIGSTOP. A single thread cannot be, so a helper traces it (ptrace(2), PTRACE_INTERRUPT), which
holds it up until the helper ends, however that comes about.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import LabError, WrongUse
from ..nodes import project_python

PACKETS = "packets"  # how a forwarder's packet threads are called


@contextlib.contextmanager
def frozen_daemon(daemon: Any) -> Iterator[None]:
    """Stops a daemon and its children until the end; if it has been killed meanwhile, there is nothing to go on."""
    os.killpg(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if daemon.poll() is None:  # else its number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGCONT)


@contextlib.contextmanager
def frozen_packet_threads(node: Any) -> Iterator[None]:
    """Holds up a forwarder's packet threads until the end; WrongUse if its engine has none."""
    forwarder = node.daemons["forwarder"]
    threads = packet_threads(forwarder.pid)
    if not threads:
        raise WrongUse(f"{node.name}'s forwarder has no packet threads: allowed are the engines ring and xdp")
    command = [project_python(), "-m", "lab.faults.freezing", *map(str, threads)]
    helper = node.start_piped("freezing", command)
    try:
        if helper.stdout.readline() != b"held up\n":
            raise LabError(f"{node.name}'s packet threads cannot be held up: see its freezing.log")
        yield
    finally:
        helper.kill()
        helper.communicate()


def packet_threads(pid: int) -> list[int]:
    """Returns the numbers of a forwarder's packet threads, which it names `packets 0` and so on."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith(PACKETS):
                found.append(int(task.name))
    return sorted(found)


def hold_up(threads: list[int]) -> None:
    """Holds up threads until this process ends; says so on standard output when they stand still."""
    import ctypes

    seize, interrupt, wait_all = 0x4206, 0x4207, 0x40000000  # linux/ptrace.h, and __WALL of wait(2)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for thread in threads:
        for request in (seize, interrupt):
            if libc.ptrace(request, thread, None, None) != 0:
                sys.exit(f"thread {thread}: {os.strerror(ctypes.get_errno())}")
        os.waitpid(thread, wait_all)
    print("held up", flush=True)
    signal.pause()


if __name__ == "__main__":
    hold_up([int(word) for word in sys.argv[1:]])
