"""What a router of Linux and BIRD says of its routing: BIRD over its control socket, the kernel over netlink.

Only the standard library, as all that nodes use.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import fabric, netlink

ESTABLISHED = "Established"  # BGP's word for a session that works (RFC 4271 §8.2.2)
ANSWER_TIMEOUT_S = 1.0
CONTROL = "bird.ctl"  # in the router's directory
VIP_PREFIXES = {4: "192.0.2.0/24", 6: "2001:db8::/64"}  # what routers take for VIPs, unless they are told
COUNTERS = "maglab"  # the table of a router's packet counters


class LinuxRouting:
    """A router's answers; only its namespace and its directory are needed, so any process may ask."""

    def __init__(
        self, pid: int, directory: Path, neighbours: Sequence[str], prefixes: Iterable[str] = VIP_PREFIXES.values()
    ) -> None:
        """`neighbours` are those with whom it has sessions, `prefixes` those that VIPs are in."""
        self._pid, self._directory, self._neighbours, self._prefixes = pid, directory, neighbours, tuple(prefixes)

    def ecmp(self) -> dict[str, tuple[str, ...]]:
        """Returns the next hops of every VIP of both families in the kernel, in the order of addresses."""
        return fabric.within(netlink.bgp_routes(self._pid), self._prefixes)

    def counters(self) -> dict[str, int]:
        """Returns the packet counters of the kernel."""
        return netlink.counters(self._pid, COUNTERS)

    def buckets(self) -> dict[str, dict[str, int]]:
        """Returns what each Maglev's bucket has counted, by VIP: a kernel's next hops count nothing."""
        return {}

    def watched(self) -> frozenset[str]:
        """Returns the addresses of the routers that BFD watches, and hears (RFC 5880)."""
        rows = (line.split() for line in answer(self._directory / CONTROL, "show bfd sessions").splitlines())
        return frozenset(row[0] for row in rows if row[2:3] == ["Up"])

    def sessions(self) -> dict[str, str]:
        """Returns how the sessions with each neighbour are: the same of all its families, or what is amiss with one."""
        return sessions(answer(self._directory / CONTROL, "show protocols"), self._neighbours)


def session_name(maglev: str, version: int) -> str:
    """Returns how BIRD calls its session with a Maglev over one family."""
    return maglev if version == 4 else f"{maglev}_ipv6"


def answer(control: Path, command: str) -> str:
    """Returns what BIRD answers to a command, without the codes at the lines' beginnings; "" if it does not answer.

    BIRD's lines begin with four digits and a minus, the last with four digits and a space, or with a space alone where
    the code is that of the line before (BIRD's doc/reply_codes).
    """
    with socket.socket(socket.AF_UNIX) as bird, contextlib.suppress(OSError):
        bird.settimeout(ANSWER_TIMEOUT_S)
        bird.connect(str(control))
        with bird.makefile("r", encoding="utf-8", errors="replace") as lines:
            lines.readline()  # who it is
            bird.sendall(command.encode() + b"\n")
            found = []
            for line in lines:
                found.append(line[1:] if line.startswith(" ") else line[5:])
                if line[:4].isdigit() and line[4:5] == " ":
                    break
            return "".join(found)
    return ""


def sessions(table: str, maglevs: Sequence[str]) -> dict[str, str]:
    """Returns how a router's sessions with each Maglev are: the same of all its families, or what is amiss with one.

    Reads BIRD's `show protocols`: name, protocol, table, state, since, and what BGP says of itself.
    """
    rows = (line.split() for line in table.splitlines())
    states = {row[0]: row[5] if len(row) > 5 else row[3] for row in rows if len(row) > 3 and row[1] == "BGP"}
    found: dict[str, str] = {}
    for maglev in maglevs:
        each = [states[name] for version in (4, 6) if (name := session_name(maglev, version)) in states]
        found[maglev] = next((state for state in each if state != ESTABLISHED), ESTABLISHED)
    return found
