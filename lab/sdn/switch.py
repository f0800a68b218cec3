"""What a switch has, asked over its management socket: without a program, and without the controller.

Open vSwitch opens that socket for whoever may read its directory; it is how `ovs-ofctl` speaks to a bridge.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import LabError
from . import openflow
from .openflow import Entry, Message
from .rules import Group

TIMEOUT_S = 2.0
CHUNK = 1 << 16


@dataclass(frozen=True)
class Contents:
    """Flows, groups, and what their buckets have counted."""

    flows: tuple[Entry, ...]
    groups: Mapping[int, Group]
    packets: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # group: packets of its buckets, in order

    @property
    def group_of(self) -> dict[str, int]:
        """Returns the group of each VIP, as an address or a prefix."""
        return {entry.destination: entry.group for entry in self.flows if entry.group is not None}

    @property
    def cookies(self) -> frozenset[int]:
        """Returns the cookies of all flows."""
        return frozenset(entry.cookie for entry in self.flows)


def read(management: Path, counters: bool = False) -> Contents:
    """Returns what a switch has, with its buckets' counters if asked for; LabError if it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as switch:
            switch.settimeout(TIMEOUT_S)
            switch.connect(str(management))
            switch.sendall(openflow.message(openflow.HELLO, 1))
            parts = {kind: _ask(switch, kind) for kind in (openflow.FLOW_DESC, openflow.GROUP_DESC)}
            counted = _ask(switch, openflow.GROUP_STATS) if counters else []
    except (OSError, ValueError, struct.error) as error:
        raise LabError(f"the switch at {management} does not answer: {error}") from None
    flows = tuple(entry for part in parts[openflow.FLOW_DESC] for entry in openflow.flows(part))
    groups = {group.number: group for part in parts[openflow.GROUP_DESC] for group in openflow.groups(part)}
    packets = {number: each for part in counted for number, each in openflow.bucket_packets(part).items()}
    return Contents(flows, groups, packets)


def _ask(switch: socket.socket, kind: int) -> list[bytes]:
    """Returns all parts of the answer to a question."""
    switch.sendall(openflow.question(kind, kind))
    parts = []
    with contextlib.closing(_messages(switch)) as messages:
        for message in messages:
            if message.type == openflow.ERROR:
                raise ValueError(f"it says error {message.body[:4].hex()}")
            if message.type == openflow.MULTIPART_REPLY and message.xid == kind:
                parts.append(message.body)
                if openflow.is_last(message.body):
                    break
    return parts


def _messages(switch: socket.socket) -> Iterator[Message]:
    """Yields what comes; ValueError when the switch hangs up."""
    rest = b""
    while True:
        chunk = switch.recv(CHUNK)
        if not chunk:
            raise ValueError("it has hung up")
        messages, rest = openflow.split(rest + chunk)
        yield from messages
