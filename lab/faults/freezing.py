"""What stands still: processes that are stopped, and packet threads that are held up while their process goes on.

Where the kernel decapsulates for an endpoint, its GRE devices would go on without the daemon that made them: they stop
and end with it, so that a fault does the same on every kernel.

A process is stopped by SIGSTOP. A single thread cannot be, so a helper traces it (ptrace(2), PTRACE_INTERRUPT), which
holds it up until the helper ends, however that comes about.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maglev.direct_return import TUNNEL

from ..errors import LabError, WrongUse
from ..nodes import project_python

PACKETS = "packets"  # how a forwarder's packet threads are called
GRE_KINDS = ("gre", "ip6gre")  # of the kernel's devices (ip-link(8))


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


def gre_devices(node: Any) -> list[str]:
    """Returns the kernel's GRE devices that an endpoint's daemon has made; none if it decapsulates itself."""
    shown = (node.run("ip", "-json", "link", "show", "type", kind).stdout for kind in GRE_KINDS)
    names = [link["ifname"] for each in shown for link in json.loads(each or "[]") if "ifname" in link]
    return sorted(name for name in names if name.startswith(TUNNEL))  # the kernel has some of its own


def end_gre_devices(node: Any) -> None:
    """Takes away the GRE devices that an endpoint's daemon has left behind."""
    for device in gre_devices(node):
        node.run("ip", "link", "del", device)


@contextlib.contextmanager
def frozen_gre_devices(node: Any) -> Iterator[None]:
    """Has an endpoint's GRE devices take nothing until the end."""
    devices = gre_devices(node)
    try:
        for device in devices:
            node.run("ip", "link", "set", device, "down")
        yield
    finally:
        for device in set(devices).intersection(gre_devices(node)):  # others have gone with their daemon
            node.run("ip", "link", "set", device, "up")


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
