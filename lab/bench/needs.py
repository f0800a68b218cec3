"""What a bench needs that a lab does not: compilers, libraries, drivers; and the sentence that says what is missing."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

AF_XDP = 44  # linux/socket.h; Python has no name for it before 3.14
HEADERS = Path("/usr/include")


class Need(NamedTuple):
    """One thing, how it is recognised, and the Debian package that brings it, if one does."""

    what: str
    is_there: Callable[[], bool]
    package: str = ""


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _header(name: str) -> Callable[[], bool]:
    return lambda: any((place / name).exists() for place in (HEADERS, *HEADERS.glob("*-linux-gnu")))


def _driver(name: str) -> Callable[[], bool]:
    return lambda: any(Path("/usr/lib").glob(f"*/dpdk/pmds-*/librte_net_{name}.so*"))


def _has_af_xdp() -> bool:
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW, 0).close()
    except PermissionError:
        return True  # it is there, for root
    except OSError:
        return False
    return True


C = (
    Need("the compiler gcc", _program("gcc"), "gcc"),
    Need("the C library's headers", _header("stdio.h"), "libc6-dev"),
    Need("the kernel's headers", _header("linux/if_xdp.h"), "linux-libc-dev"),
)
BPF = (
    *C,
    Need("the compiler clang", _program("clang"), "clang"),
    Need("libbpf", _header("bpf/libbpf.h"), "libbpf-dev"),
)
XDP_SOCKETS = (Need("AF_XDP in the kernel", _has_af_xdp),)
TESTPMD = Need("dpdk-testpmd", _program("dpdk-testpmd"), "dpdk-dev")
DPDK_AF_PACKET = (TESTPMD, Need("DPDK's driver af_packet", _driver("af_packet"), "librte-meta-net"))
DPDK_AF_XDP = (*XDP_SOCKETS, TESTPMD, Need("DPDK's driver af_xdp", _driver("af_xdp"), "librte-meta-net"))


def missing(needs: Iterable[Need]) -> str:
    """Returns a sentence on the first need that is not met, with the way out; "" if all are."""
    for need in needs:
        if not need.is_there():
            way_out = f"; Debian's package {need.package} brings it, and make bench installs it" if need.package else ""
            return f"{need.what} is missing{way_out}"
    return ""
