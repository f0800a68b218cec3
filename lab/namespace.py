"""Work done in a node's network namespace without starting a process there: a big lab does it hundreds of times.

A thread of its own enters the namespace and ends with the work. What it opens, starts or reads under `/proc/sys/net`
belongs to that namespace.

Only the standard library, as all that nodes use.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from .errors import LabError

Result = TypeVar("Result")

CLONE_NEWNET = 0x40000000  # linux/sched.h
SYSCTL = Path("/proc/sys")
SIOCETHTOOL = 0x8946  # linux/sockios.h
# linux/ethtool.h: what `ethtool -K INTERFACE NAME off` asks for
OFFLOADS = {"tx": 0x17, "gro": 0x2C, "gso": 0x24, "tso": 0x1F}
_libc = ctypes.CDLL(None, use_errno=True)


def within(pid: int, work: Callable[[], Result]) -> Result:
    """Returns what `work` returns, or raises what it raises, in the network namespace of a process."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def visit() -> None:
        try:
            _enter(pid)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    visitor = threading.Thread(target=visit, name=f"in the network of {pid}", daemon=True)
    visitor.start()
    visitor.join()
    if errors:
        raise errors[0]
    return results[0]


def _enter(pid: int) -> None:
    """Moves this thread; LabError if there is no such process any more."""
    try:
        with open(f"/proc/{pid}/ns/net", "rb") as namespace:
            if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except OSError as error:
        raise LabError(f"cannot enter the network of process {pid}: {error.strerror}") from None


def set_sysctls(values: Mapping[str, str]) -> None:
    """Sets kernel parameters of the namespace that the caller is in; LabError, naming the one that cannot be set."""
    for name, value in values.items():
        try:
            SYSCTL.joinpath(*name.split(".")).write_text(value)
        except OSError as error:
            raise LabError(f"{name} cannot be set to {value}: {error.strerror}") from None


def switch_off(interfaces: Iterable[str], offloads: Iterable[str] = tuple(OFFLOADS)) -> None:
    """Switches off what interfaces would do for the kernel, by `ethtool`'s names; LabError if it cannot be.

    What an interface cannot do at all is off: a veth whose other end has an XDP program segments nothing.
    """
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as handle:
        for interface in interfaces:
            for name in offloads:
                off = array.array("I", [OFFLOADS[name], 0])  # struct ethtool_value
                request = struct.pack("16sP16x", interface.encode(), off.buffer_info()[0])  # struct ifreq
                try:
                    fcntl.ioctl(handle, SIOCETHTOOL, request)
                except OSError as error:
                    if error.errno == errno.EOPNOTSUPP:
                        continue
                    raise LabError(f"{interface}: {name} cannot be switched off: {error.strerror}") from None
