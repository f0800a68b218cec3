"""Two machines of a check's own, joined by a wire: an endpoint, where the student's code runs, and its router.

Both are network namespaces. The process that judges lives at the endpoint from then on, and both go when it ends.
Frames are sent and seen at the router's end. Without root it takes a kernel that gives namespaces to anybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from .criteria import Case

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
ETH_P_ALL, PACKET_OUTGOING = 0x0003, 4  # linux/if_ether.h, linux/if_packet.h
DEADLINE_S = 3.0  # for a frame to come
LARGEST_FRAME_BYTES = 1 << 16
ENDPOINT, ROUTER = "s1-eth0", "r1-eth0"
ADDRESSES = {ENDPOINT: "10.2.1.2", ROUTER: "10.2.1.1"}
LINK_ADDRESSES = {ENDPOINT: "02:00:00:00:00:02", ROUTER: "02:00:00:00:00:01"}
MTU_BYTES = 1600
_libc = ctypes.CDLL(None, use_errno=True)

Found = TypeVar("Found")


def joined(case: Case) -> Wire:
    """Moves this process to a new endpoint; the criterion is skipped where that cannot be."""
    try:
        return Wire()
    except (OSError, subprocess.CalledProcessError) as error:
        case.skip(f"this machine makes no network namespaces for a check, {_why(error)}; as root it may")


def _why(error: OSError | subprocess.CalledProcessError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else error.stderr.decode().strip()


class Wire:
    """The wire between the endpoint, where this process is, and the router."""

    def __init__(self) -> None:
        user, group = os.geteuid(), os.getegid()
        if user != 0:
            _check(_libc.unshare(CLONE_NEWUSER))
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        self._router, self._endpoint = _new_namespace(), _new_namespace()
        theirs = f"netns /proc/{os.getpid()}/fd/{self._router}"
        ip(f"link add {ENDPOINT} type veth peer name {ROUTER} {theirs}")
        self._set_up(ENDPOINT)
        with self._at_router():
            self._set_up(ROUTER)
            self._end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._end.bind((ROUTER, 0))
        ip(f"route add default via {ADDRESSES[ROUTER]}")

    def _set_up(self, name: str) -> None:
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        ip("link set lo up")
        ip(f"link set {name} address {LINK_ADDRESSES[name]} mtu {MTU_BYTES} up")
        ip(f"address add {ADDRESSES[name]}/24 dev {name}")

    @contextlib.contextmanager
    def _at_router(self) -> Iterator[None]:
        _check(_libc.setns(self._router, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(self._endpoint, CLONE_NEWNET))

    def send(self, frame: bytes) -> None:
        """Sends a frame from the router's end."""
        self._end.send(frame)

    def seen(self, look: Callable[[bytes], Found | None]) -> Found | None:
        """Returns the first thing that `look` finds in a frame which the endpoint sends; None if none comes."""
        until = time.monotonic() + DEADLINE_S
        while (left_s := until - time.monotonic()) > 0:
            self._end.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                frame, sender = self._end.recvfrom(LARGEST_FRAME_BYTES)
                found = look(frame) if sender[2] != PACKET_OUTGOING else None
                if found is not None:
                    return found
        return None


def ip(command: str) -> str:
    """Runs an `ip` command in the namespace of the caller; returns what it says."""
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True).stdout.decode()


def _new_namespace() -> int:
    """Moves this thread into a new network namespace; returns a descriptor that names it."""
    _check(_libc.unshare(CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
