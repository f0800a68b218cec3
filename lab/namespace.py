"""Work done in a node's network namespace without a process there: a large lab does it hundreds of times.

A thread of its own enters the namespace and ends with the work. What it opens, starts or reads under `/proc/sys/net`
belongs to that namespace.

Only the standard library, as all that nodes use.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from .errors import LabError, Lacking

Result = TypeVar("Result")

CLONE_NEWNET = 0x40000000  # linux/sched.h
SYSCTL = Path("/proc/sys")
READ_ONLY = (
    "/proc/sys is read-only, as in a container: give it --security-opt systempaths=unconfined (Podman: unmask=ALL)"
)
SIOCETHTOOL = 0x8946  # linux/sockios.h
ETHTOOL_GSTRINGS, ETHTOOL_SFEATURES, ETH_SS_FEATURES = 0x1B, 0x3B, 4  # linux/ethtool.h
NAME_BYTES, MOST_FEATURES = 32, 256  # ETH_GSTRING_LEN; kernels know some 60
# What `ethtool -K INTERFACE tx off gro off gso off tso off` means.
OFFLOADS = ("tx-checksum-*", "rx-gro", "tx-generic-segmentation", "tx-tcp*-segmentation")
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
    """Sets kernel parameters of the namespace that the caller is in; LabError, naming the one that cannot be set.

    Lacking if none can: this is a container.
    """
    for name, value in values.items():
        try:
            SYSCTL.joinpath(*name.split(".")).write_text(value)
        except OSError as error:
            if error.errno == errno.EROFS:
                raise Lacking(f"{name} cannot be set: {READ_ONLY}") from None
            raise LabError(f"{name} cannot be set to {value}: {error.strerror}") from None


def switch_off_offloads(interfaces: Iterable[str]) -> None:
    """Has interfaces leave to the kernel what they would do for it; what one cannot do at all is off already.

    LabError, naming the interface, for one that is not there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        features = _features(handle)
        chosen = [number for number, name in enumerate(features) if any(fnmatchcase(name, like) for like in OFFLOADS)]
        blocks = [0] * (2 * -(-len(features) // 32))  # for each 32 features those that are meant, and those to be on
        for number in chosen:
            blocks[number // 32 * 2] |= 1 << number % 32
        for interface in interfaces:
            _ethtool(handle, interface, array.array("I", [ETHTOOL_SFEATURES, len(blocks) // 2, *blocks]))


def _features(handle: socket.socket) -> list[str]:
    """Returns the names of all features that this kernel knows, in the order of their bits."""
    strings = array.array("I", [ETHTOOL_GSTRINGS, ETH_SS_FEATURES, 0, *[0] * (MOST_FEATURES * NAME_BYTES // 4)])
    _ethtool(handle, "lo", strings)
    names = strings[3:].tobytes()
    each = (names[place : place + NAME_BYTES] for place in range(0, strings[2] * NAME_BYTES, NAME_BYTES))
    return [name.partition(b"\0")[0].decode() for name in each]


def _ethtool(handle: socket.socket, interface: str, words: array.array[int]) -> None:
    """Asks an interface's driver for something; the answer is in `words` afterwards."""
    request = struct.pack("16sP16x", interface.encode(), words.buffer_info()[0])  # struct ifreq
    try:
        fcntl.ioctl(handle, SIOCETHTOOL, request)
    except OSError as error:
        raise LabError(f"the offloads of {interface} cannot be set: {error.strerror}") from None
