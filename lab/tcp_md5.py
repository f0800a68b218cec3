"""A password for BGP sessions: TCP segments signed by MD5 (RFC 2385), where the kernel can.

Only the standard library: nodes use it.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import LabError

TCP_MD5SIG = 14  # linux/tcp.h
LONGEST_BYTES = 80  # TCP_MD5SIG_MAXKEYLEN
PASSWORD = r"[A-Za-z0-9._~+/=@%:,-]{0,80}"  # neither BIRD nor ExaBGP reads anything else into these
ALLOWED = f"up to {LONGEST_BYTES} letters, digits and . _ ~ + / = @ % : , - (none: sessions without a password)"
_SIGNATURE = struct.Struct("=HH4s120x BBHi80s")  # struct tcp_md5sig: address, flags, prefix, length, interface, key


def checked(password: object) -> str:
    """Returns a password that BGP may have, "" for none; ValueError, which does not repeat it, for another."""
    if not isinstance(password, str) or not re.fullmatch(PASSWORD, password):
        raise ValueError(f"this bgp_password is not allowed; allowed: {ALLOWED}")
    return password


def hidden(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a topology's options as they may be shown to others: that there is a password, but not which."""
    return {name: "(not shown)" if name == "bgp_password" and value else value for name, value in options.items()}


def usable(password: object) -> str:
    """Returns a password that is allowed and that this kernel can sign with; LabError for another."""
    try:
        sound = checked(password)
    except ValueError as error:
        raise LabError(str(error)) from None
    if sound and not is_there():
        raise LabError("this kernel cannot sign TCP segments (RFC 2385): leave bgp_password out")
    return sound


def is_there() -> bool:
    """Says whether this kernel signs TCP segments."""
    address = socket.AF_INET, 0, socket.inet_aton("127.0.0.1")
    with socket.socket() as tried:
        try:
            tried.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, _SIGNATURE.pack(*address, 0, 0, 1, 0, b"x"))
        except OSError:
            return False
    return True


def sign(listening: socket.socket, peer: str, password: str) -> None:
    """Has a listening socket take connections of a peer only if it signs with this password, and sign what it sends."""
    family, key = listening.family, password.encode()
    before_address = 4 if family == socket.AF_INET6 else 0  # flow information (struct sockaddr_in6)
    address = struct.pack(f"=HH{before_address}x", family, 0) + socket.inet_pton(family, peer)
    signature = struct.pack("=128s BBHi80s", address, 0, 0, len(key), 0, key)
    listening.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, signature)


def write_private(path: Path, text: str) -> None:
    """Writes a file that nobody but its owner may read, whoever could read the one before it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
