"""What a daemon asks of the machine it runs on: which addresses it has, and to be told when to stop."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pyroute2 import IPRoute

from ..errors import PlatformError
from ..flow import GRE, Address, pack_address

SO_ATTACH_FILTER = 26  # asm-generic/socket.h
TAKE_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # struct sock_filter: return 0 bytes

RT_SCOPE_LINK = 253  # linux/rtnetlink.h
SYSCTL = Path("/proc/sys/net/ipv4/conf")


def own_addresses() -> dict[bytes, str]:
    """Returns this machine's addresses (16 bytes each) of both families, and the interface that holds each.

    IPv6 addresses of one link only (fe80::/10) are left out: another machine may have the same.
    """
    with IPRoute() as kernel:
        names = {link["index"]: link.get("ifname") for link in kernel.get_links()}
        held = [
            each for each in kernel.get_addr() if (each["family"], each["scope"]) != (socket.AF_INET6, RT_SCOPE_LINK)
        ]
        # only an address with a peer, or of IPv4, has its own end in `local`
        return {pack_address(each.get("local") or each.get("address")): names[each["index"]] for each in held}


def own_among(candidates: Iterable[Address], role: str) -> tuple[Address, ...]:
    """Returns the addresses among `candidates` that this machine has; PlatformError if it has none."""
    own = own_addresses()
    mine = tuple(address for address in candidates if pack_address(address) in own)
    if not mine:
        raise _cannot_tell(role, "none of them is an address of it")
    return mine


def find_self(candidates: Mapping[Address, str], role: str) -> str:
    """Returns the one name whose addresses, among `candidates`, this machine has; PlatformError otherwise."""
    mine = own_among(candidates, role)
    if len(names := {candidates[address] for address in mine}) > 1:
        raise _cannot_tell(role, f"{', '.join(map(str, mine))} are addresses of it")
    return names.pop()


def _cannot_tell(role: str, found: str) -> PlatformError:
    return PlatformError(f"cannot tell which {role} this machine is: {found}; name one with an option")


def keep_kernel_from_answering_gre(undo: contextlib.ExitStack) -> None:
    """Has the kernel take GRE without a word until `undo`: it would tell the sender that nobody here speaks it.

    What other Maglevs send us is read by the engine; the socket takes nothing. A kernel whose module for GRE devices is
    loaded tells all the same, once a second to each sender (icmp(7), icmp_ratelimit), which no Maglev minds.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            taker = undo.enter_context(socket.socket(family, socket.SOCK_RAW, GRE))
        except PermissionError:
            raise PlatformError("a raw socket needs CAP_NET_RAW: run the forwarder as root") from None
        except OSError:  # no IPv6
            continue
        nothing = ctypes.create_string_buffer(TAKE_NOTHING, len(TAKE_NOTHING))
        program = struct.pack("HP", 1, ctypes.addressof(nothing))
        taker.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def set_sysctl(interface: str, name: str, value: int, undo: contextlib.ExitStack) -> None:
    """Sets net.ipv4.conf.INTERFACE.NAME; `undo` sets it back, if the interface is still there."""
    path = SYSCTL / interface / name
    before = path.read_text()
    try:
        path.write_text(str(value))
    except OSError as error:
        raise PlatformError(f"cannot set {path}: {error.strerror}; run the endpoint as root") from None
    undo.callback(_write_if_there, path, before)


def _write_if_there(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text)


def say(text: str) -> None:
    """Writes a line to the daemon's log, its standard error."""
    print(text, file=sys.stderr, flush=True)


def leave_on_signals() -> None:
    """Makes SIGTERM and SIGINT leave through `SystemExit`, so that whatever was set up is taken down."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)


def name_thread(name: str) -> None:
    """Names the thread that calls, for the kernel: up to 15 characters."""
    with contextlib.suppress(OSError):  # no /proc
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)


def die_with_any_thread() -> None:
    """Makes the failure of a background thread end the whole daemon: half a daemon is worse than none."""

    def die(failure: Any) -> None:
        traceback.print_exception(failure.exc_type, failure.exc_value, failure.exc_traceback, file=sys.stderr)
        signal.raise_signal(signal.SIGTERM)

    threading.excepthook = die
