"""The forwarder's decision: a frame and the time in, a `Decision` out (Maglev §3.1, §3.3).

This is the reference that every engine follows. Its parts can be exchanged: the hash, the connection table, the map
of VIPs. It does no I/O and keeps no state but its connection table; moving packets is `engine`'s business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from . import packets
from .errors import IGNORED, Discard, Reason
from .flow import Flow, selection_hash
from .gre import Tunnel
from .vips import EMPTY, Backends, VipMap


class Decision(NamedTuple):
    """What becomes of a frame: sent in GRE to an endpoint, or not sent for a reason."""

    packet: bytes = b""  # the outer IP packet
    endpoint: bytes = b""  # where it goes, 16 bytes
    vip: str = ""
    reason: Reason | None = None


class ConnectionTable(Protocol):
    """What remembers which backend (16 bytes) a flow was given; `conntrack.ConnectionTable` does."""

    def lookup(self, flow: Flow, now: float) -> bytes | None: ...
    def record(self, flow: Flow, backend: bytes, now: float) -> bool: ...


class Forwarder:
    """Decides, packet by packet, for the Maglev whose own address is `address` (16 bytes)."""

    def __init__(
        self,
        address: bytes,
        connections: ConnectionTable,
        vips: VipMap = EMPTY,
        hash_flow: Callable[[Flow], int] = selection_hash,
    ) -> None:
        self.vips = vips  # exchanged whole, by assignment, when configuration or health change
        self.connections = connections
        self._address = address
        self._hash_flow = hash_flow
        self._tunnels: dict[bytes, Tunnel] = {}

    def decide(self, frame: bytes, now: float) -> Decision:
        """Returns what to do with an Ethernet frame at `now` (monotonic seconds); never raises, whatever it holds."""
        try:
            packet = packets.parse(frame)
            ports = self.vips.at(packet.destination)
            if ports is None:
                raise Discard(Reason.NOT_VIP)
            flow, opens = packets.flow_of(packet)
            service = ports.get((flow.protocol, flow.destination_port))
            if service is None:
                raise Discard(Reason.NO_VIP_PORT)
            endpoint = self.choose(flow, opens, service.backends, now)
            return Decision(self._tunnel(endpoint).encapsulate(packet.data), endpoint, service.name)
        except Discard as discard:
            return Decision(reason=discard.reason)

    def choose(self, flow: Flow, opens: bool, backends: Backends, now: float) -> bytes:
        """Returns a flow's backend (16 bytes), and remembers it; raises `Discard` if there is none (Maglev §3.3).

        A TCP SYN always selects, since it may open a new connection on the ports of an old one. Any other packet
        keeps the backend that the connection table names, while that is healthy; otherwise it selects too, and
        consistent hashing makes it likely that it selects what another Maglev once did.
        """
        if not opens:
            known = self.connections.lookup(flow, now)
            if known in backends.usable:
                return known
        selected = backends.select(self._hash_flow(flow))
        if selected is None:
            raise Discard(Reason.NO_BACKEND)
        self.connections.record(flow, selected, now)
        return selected

    def _tunnel(self, endpoint: bytes) -> Tunnel:
        tunnel = self._tunnels.get(endpoint)
        if tunnel is None:
            tunnel = self._tunnels[endpoint] = Tunnel(self._address, endpoint)
        return tunnel


class Statistics:
    """Counts what became of every frame; one thread counts, others may read."""

    def __init__(self) -> None:
        self.forwarded: Counter[tuple[str, bytes]] = Counter()  # (VIP, endpoint): packets
        self.reasons: Counter[Reason] = Counter()

    def count(self, decision: Decision) -> None:
        """Counts a decision that was carried out."""
        if decision.reason is None:
            self.forwarded[decision.vip, decision.endpoint] += 1
        else:
            self.reasons[decision.reason] += 1

    def drops(self) -> dict[str, int]:
        """Returns packets by the reason for which they were dropped, other people's traffic left out."""
        reasons = self.reasons.copy()
        return {reason.value: reasons[reason] for reason in sorted(reasons) if reason not in IGNORED}
