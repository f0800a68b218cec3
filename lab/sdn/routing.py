"""What a software-defined router says of its routing: its switch over the management socket, its controller over HTTP.

Only the router's namespace and directory are needed, so any process may ask. Only the standard library.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import netlink
from ..bird import COUNTERS, ESTABLISHED
from ..errors import LabError
from . import switch

DOCUMENT = "controller.json"  # in the router's directory: what the controller is told
MANAGEMENT = "br0.mgmt"  # where Open vSwitch answers for the bridge br0
CONTROL = "controller.sock"
ANSWER_TIMEOUT_S = 1.0
NO_ANSWER = "no answer"


class SwitchRouting:
    """A router's answers."""

    def __init__(self, pid: int, directory: Path) -> None:
        self._pid, self._directory = pid, directory

    @cached_property
    def _peers(self) -> list[dict[str, Any]]:
        """Returns address, port and name of each Maglev; of one with two families twice."""
        peers: list[dict[str, Any]] = json.loads((self._directory / DOCUMENT).read_text())["peers"]
        return peers

    def _of_vip(self, vip: str) -> Iterator[dict[str, Any]]:
        """Yields the peers of a VIP's family."""
        return (peer for peer in self._peers if (":" in peer["address"]) == (":" in vip))

    def watched(self) -> frozenset[str]:
        """Returns the addresses of the routers that BFD watches: a switch speaks to no other router."""
        return frozenset()

    def counters(self) -> dict[str, int]:
        """Returns the packet counters of the router's kernel, where packets leave and come."""
        return netlink.counters(self._pid, COUNTERS, netlink.NFPROTO_NETDEV)

    def ecmp(self) -> dict[str, tuple[str, ...]]:
        """Returns the next hops of every VIP in the switch's groups, in the order of addresses."""
        contents = switch.read(self._directory / MANAGEMENT)
        found = {}
        for vip, group in contents.group_of.items():
            behind = {peer["port"]: peer["address"] for peer in self._of_vip(vip)}
            if group in contents.groups:
                found[vip] = tuple(sorted(behind[bucket.port] for bucket in contents.groups[group].buckets))
        return found

    def buckets(self) -> dict[str, dict[str, int]]:
        """Returns the packets that each Maglev's bucket has counted, by VIP; the switch may be a second behind."""
        contents = switch.read(self._directory / MANAGEMENT, counters=True)
        names = {peer["port"]: peer["maglev"] for peer in self._peers}
        return {
            vip: {
                names[bucket.port]: packets
                for bucket, packets in zip(contents.groups[group].buckets, contents.packets[group], strict=True)
            }
            for vip, group in contents.group_of.items()
            if group in contents.groups and group in contents.packets
        }

    def sessions(self) -> dict[str, str]:
        """Returns how the sessions with each Maglev are: the same of all its families, or what is amiss with one."""
        states = self._states()
        found: dict[str, str] = {}
        for peer in self._peers:
            state = states.get(peer["address"], [NO_ANSWER])[0]
            if found.get(peer["maglev"], ESTABLISHED) == ESTABLISHED:
                found[peer["maglev"]] = state
        return found

    def sessions_with(self, maglev: str) -> list[list[str]]:
        """Returns what the controller says of its sessions with a Maglev: of each the peer, the state, since when."""
        states = self._states()
        addresses = [peer["address"] for peer in self._peers if peer["maglev"] == maglev]
        return [[address, *states.get(address, [NO_ANSWER])] for address in addresses]

    def tell_sessions(self, maglev: str, command: str) -> None:
        """Has the controller restart, disable or enable its sessions with a Maglev; LabError if it does not."""
        for peer in self._peers:
            if peer["maglev"] == maglev:
                self._ask("POST", f"/{command}?peer={peer['address']}")

    def _states(self) -> dict[str, list[str]]:
        """Returns state and beginning of each session, by the peer's address; nothing if the controller is silent."""
        try:
            states: dict[str, list[str]] = self._ask("GET", "/status")["sessions"]
        except LabError:
            return {}
        return states

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        """Returns what the controller answers; LabError if it does not, or refuses."""
        connection = _UnixConnection(self._directory / CONTROL)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise LabError(f"the controller at {self._directory / CONTROL} does not answer: {error}") from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise LabError(f"the controller at {self._directory / CONTROL} refuses: {answer['error']}")
        return answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("controller", timeout=ANSWER_TIMEOUT_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
