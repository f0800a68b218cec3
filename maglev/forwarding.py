"""The forwarder's decision: a frame and the time in, a `Decision` out (Maglev §3.1, §3.3, §4.2, §4.3).

This is the reference that every engine follows. Its parts can be exchanged: the hash, the connection table, the map
of VIPs. It does no I/O and keeps no state but its connection and fragment tables; moving packets is `engine`'s
business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from . import fragments, icmp, packets, trace
from .errors import NO_DROPS, Discard, Reason
from .flow import GRE, TCP, UDP, Flow, by_family, is_v4, selection_hash
from .fragments import Choice, FragmentTable, Owners
from .gre import LARGEST_PACKET_BYTES, Tunnel, from_peer
from .limits import Budget, NewFlows
from .packets import Packet
from .trace import Chooser, Reporter, Traced, Tracer
from .vips import EMPTY, Ports, Service, VipMap, service_at

ICMP_ERRORS_PER_S = 1000.0  # that a Maglev answers with: enough for path MTU discovery, useless for a flood


class Decision(NamedTuple):
    """What becomes of a frame: sent in GRE to an endpoint or another Maglev, or not sent for a reason."""

    packet: bytes = b""  # the outer IP packet
    endpoint: bytes = b""  # where it goes, 16 bytes
    vip: str = ""  # "" if it goes to another Maglev
    reason: Reason | None = None
    answer: bytes = b""  # an IP packet for the sender, to go back the way that the frame came
    more: tuple[Decision, ...] = ()  # what else is to be sent, in order

    def all(self) -> Iterator[Decision]:
        """Yields this decision and those that come with it."""
        yield self
        yield from self.more


class ConnectionTable(Protocol):
    """What remembers which backend (16 bytes) a flow was given; `conntrack.ConnectionTable` does."""

    def lookup(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None: ...
    def peek(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None: ...
    def record(self, flow: Flow, backend: bytes, now: float) -> bool: ...


class FlowLimiter(Protocol):
    """What knows how many new flows a VIP may still take; `limits.NewFlows` does."""

    def take(self, vip: str, per_s: float, now: float) -> bool: ...


class Forwarder:
    """Decides, packet by packet, for the Maglev whose own addresses are `own` (16 bytes each, one a family)."""

    def __init__(
        self,
        own: bytes | Iterable[bytes],
        connections: ConnectionTable,
        vips: VipMap = EMPTY,
        hash_flow: Callable[[Flow], int] = selection_hash,
        fragment_limits: fragments.Limits = fragments.DEFAULT_LIMITS,
        icmp_errors_per_s: float = ICMP_ERRORS_PER_S,
        new_flows: FlowLimiter | None = None,
        name: str = "",
        trace_reports_per_s: float = trace.REPORTS_PER_S,
    ) -> None:
        self.vips = vips  # exchanged whole, by assignment, when configuration or health change
        self.connections = connections
        self.fragments = FragmentTable(fragment_limits)
        self.owners = Owners(fragment_limits)
        self.new_flows = new_flows or NewFlows()
        self.mtu_bytes = LARGEST_PACKET_BYTES  # of the link that packets leave by
        self._own = by_family(own)
        self._hash_flow = hash_flow
        self._tunnels: dict[bytes, Tunnel] = {}
        self._icmp_errors = Budget(icmp_errors_per_s)
        self._reporter = Reporter(name, self._own, trace_reports_per_s)

    def decide(self, frame: bytes, now: float) -> Decision:
        """Returns what to do with an Ethernet frame at `now` (monotonic seconds); never raises, whatever it holds."""
        try:
            packet = packets.parse(frame)
            if packet.protocol == GRE and packet.destination in self._own.values():
                return self._take_from_peer(packet, now)
            return self._decide(packet, now)
        except Discard as discard:
            return Decision(reason=discard.reason)

    def _decide(self, packet: Packet, now: float, came_from: bytes = b"") -> Decision:
        """Decides a packet; `came_from` is the Maglev (16 bytes) that sent it on to this one."""
        ports = self.vips.at(packet.destination)
        if ports is None:
            raise Discard(Reason.NOT_VIP)
        try:
            if packet.fragment:
                return self._decide_fragment(packet, ports, now, came_from)
            if icmp.is_error(packet):
                return self._send(packet, *self._choose_for_error(packet, ports, now), now)
            choice, flow_hash = self._choose_for(packet, ports, now)
            return self._told(self._send(packet, choice, flow_hash, now), choice.traced, now)
        except Discard as discard:
            return self._told(Decision(reason=discard.reason), _dropped(packet), now, came_from)

    def _choose_for(self, packet: Packet, ports: Ports, now: float) -> tuple[Choice, int]:
        """Returns endpoint and VIP of a packet that shows its transport header, and the hash of its flow."""
        flow, opens = packets.flow_of(packet)
        service = _service_of(flow, ports)
        known_as, selects = _known_as(flow, opens, service)
        flow_hash, continues = self._hash_flow(known_as), flow.protocol == TCP and not opens
        tracer = trace.read(packet)
        if tracer is None:
            named, traced = _named_by_cid(packet, service), None
            endpoint = named or self.choose(known_as, selects, service, now, continues)
        elif endpoint := self._peek(known_as, selects, service, now):
            traced = Traced(tracer, flow, Chooser.CONNECTION_TABLE)
        else:
            endpoint = self.choose(known_as, selects, service, now, continues)
            traced = Traced(tracer, flow, Chooser.LOOKUP_TABLE, flow_hash % len(service.backends.slots))
        return Choice(endpoint, service.name, traced), flow_hash

    def _peek(self, flow: Flow, selects: bool, service: Service, now: float) -> bytes:
        """Returns the backend that a tracer packet's flow is known to have, b"" if none; this is no use of it."""
        known = None if selects else self.connections.peek(flow, now, service.idle_timeout_s)
        return known if known and known in service.backends.usable else b""

    def choose(self, flow: Flow, selects: bool, service: Service, now: float, continues: bool = False) -> bytes:
        """Returns a flow's backend (16 bytes), and remembers it; raises `Discard` if there is none (Maglev §3.3).

        A TCP SYN always selects, since it may open a new connection on the ports of an old one. Any other packet
        keeps the backend that the connection table names, while that is healthy; otherwise it selects too, and
        consistent hashing makes it likely that it selects what another Maglev once did.

        Beyond its VIP's limit a new flow is dropped. What `continues` a TCP connection may be known to another Maglev:
        it is forwarded, but not remembered.
        """
        backends = service.backends
        if not selects:
            known = self.connections.lookup(flow, now, service.idle_timeout_s)
            if known in backends.usable:
                return known
        limit = service.new_flows_per_s
        is_within = limit is None or self.new_flows.take(service.name, limit, now)
        if not is_within and not continues:
            raise Discard(Reason.RATE_LIMITED)
        selected = backends.select(self._hash_flow(flow))
        if selected is None:
            raise Discard(Reason.NO_BACKEND)
        if is_within:
            self.connections.record(flow, selected, now)
        return selected

    def _choose_for_error(self, packet: Packet, ports: Ports, now: float) -> tuple[Choice, int]:
        """Returns endpoint and VIP of the flow that an ICMP error is about; an error is no use of the connection."""
        flow = icmp.flow_in_error(packet)
        if flow is None:
            raise Discard(Reason.ICMP_UNRELATED)
        service = _service_of(flow, ports)
        known_as, _ = _known_as(flow, False, service)
        flow_hash = self._hash_flow(known_as)
        endpoint = self.connections.peek(known_as, now, service.idle_timeout_s)
        if endpoint not in service.backends.usable:
            endpoint = service.backends.select(flow_hash)
        if endpoint is None:
            raise Discard(Reason.NO_BACKEND)
        return Choice(endpoint, service.name), flow_hash

    # --- fragments (Maglev §4.3) -------------------------------------------------------------------------------------

    def _decide_fragment(self, packet: Packet, ports: Ports, now: float, came_from: bytes) -> Decision:
        """Sends a fragment on to the Maglev that owns its packet; the owner decides, whoever it has it from."""
        key = fragments.key_of(packet)
        peer = self.goes_on_to(packet, now, came_from)
        if peer is not None:
            redirected = Decision(self._tunnel(peer).encapsulate(packet.data, redirected=True), peer)
            return self._told(redirected, _traced(packet, Chooser.FRAGMENT_OWNER), now)
        if packet.shows_transport:
            choice, flow_hash = self._choose_for(packet, ports, now)
            released = self.fragments.first(key, choice, now)
            sent = self._told(self._send(packet, choice, flow_hash, now), choice.traced, now, came_from)
            follow = _as_first(choice.traced)
            after = (self._told(self._send(held, choice, 0, now), follow, now) for held in released)
            return sent._replace(more=(*sent.more, *after))
        known = self.fragments.choice(key, now)
        if known is not None:
            return self._told(self._send(packet, known, 0, now), _as_first(known.traced), now, came_from)
        raise Discard(Reason.HELD if self.fragments.hold(key, packet, now) else Reason.FRAGMENT_TOO_EARLY)

    def goes_on_to(self, packet: Packet, now: float, came_from: bytes = b"") -> bytes | None:
        """Returns the Maglev (16 bytes) that a fragment goes on to; None if it stays here.

        It stays with its owner, and with whoever has it from another Maglev (`came_from`, 16 bytes): nothing is sent on
        twice, even if Maglevs do not agree on who lives.
        """
        owner = None if came_from else self._owner_of(packet, fragments.key_of(packet), now)
        return None if owner in self._own.values() else owner

    def _owner_of(self, packet: Packet, key: fragments.Key, now: float) -> bytes | None:
        cluster, owners = self.vips.cluster, self.vips.owners_at(packet.destination)
        if cluster is None or owners is None:
            return None
        hashed = self._hash_flow(packets.three_tuple(packet))
        return self.owners.of(key, lambda: owners.select(hashed), cluster.lives, now)

    def _take_from_peer(self, outer: Packet, now: float) -> Decision:
        """Decides what another Maglev has sent: a fragment that it has sent on, or a hello."""
        source, inner, once = from_peer(outer)
        if self.vips.cluster is None or source not in self.vips.cluster.known:
            raise Discard(Reason.NOT_FROM_MAGLEV)
        packet = packets.parse_ip(inner)
        if packet.destination in self._own.values() and icmp.is_echo_request(packet):
            return Decision(reason=Reason.HELLO, answer=icmp.echo_reply(packet))
        if not once or packet.fragment is None:
            raise Discard(Reason.BAD_GRE_HEADER)
        return self._decide(packet, now, came_from=source)

    # --- what is sent ------------------------------------------------------------------------------------------------

    def _send(self, packet: Packet, choice: Choice, flow_hash: int, now: float) -> Decision:
        tunnel = self._tunnel(choice.endpoint)
        room_bytes = self.mtu_bytes - tunnel.overhead_bytes
        if len(packet.data) <= room_bytes:
            return Decision(tunnel.encapsulate(packet.data, flow_hash), choice.endpoint, choice.vip)
        if packet.may_be_fragmented and room_bytes >= packet.header_bytes + packets.FRAGMENT_UNIT_BYTES:
            parts = packets.split_v4(packet.data, packet.header_bytes, room_bytes)
            first, *rest = (Decision(tunnel.encapsulate(part), choice.endpoint, choice.vip) for part in parts)
            return first._replace(more=tuple(rest))
        return Decision(reason=Reason.TOO_BIG, answer=self._too_big(packet, room_bytes, now))

    def _told(self, decision: Decision, traced: Traced | None, now: float, came_from: bytes = b"") -> Decision:
        """Returns the decision about a tracer packet with the report of it; others, and those answered, as they are."""
        if traced is None or decision.answer:
            return decision
        reason = "" if decision.reason is None else decision.reason.value
        said = self._reporter.report(traced, decision.vip, decision.endpoint, came_from, reason, now)
        return decision._replace(answer=said)

    def _too_big(self, packet: Packet, room_bytes: int, now: float) -> bytes:
        """Returns the answer to a packet that does not fit; none to an error (RFC 1122 §3.2.2), nor beyond the rate."""
        if icmp.is_error(packet) or not packet.shows_transport or not self._icmp_errors.take(now):
            return b""
        return icmp.too_big(packet, room_bytes)

    def _tunnel(self, endpoint: bytes) -> Tunnel:
        tunnel = self._tunnels.get(endpoint)
        if tunnel is None:
            own = self._own.get(is_v4(endpoint))
            if own is None:
                raise Discard(Reason.NO_NEXT_HOP)
            tunnel = self._tunnels[endpoint] = Tunnel(own, endpoint)
        return tunnel


def _traced(packet: Packet, chooser: Chooser) -> Traced | None:
    """Returns what is known of a tracer packet, None of any other."""
    tracer: Tracer | None = trace.read(packet)
    return Traced(tracer, packets.flow_of(packet)[0], chooser) if tracer else None


def _dropped(packet: Packet) -> Traced | None:
    return _traced(packet, Chooser.NOBODY)


def _as_first(first: Traced | None) -> Traced | None:
    """Returns what is known of a fragment that goes where the first of its packet went."""
    return first._replace(chooser=Chooser.FRAGMENT_TABLE, slot=trace.NO_SLOT) if first else None


def _service_of(flow: Flow, ports: Ports) -> Service:
    service = service_at(ports, flow.protocol, flow.destination_port)
    if service is None:
        raise Discard(Reason.NO_VIP_PORT)
    return service


def _named_by_cid(packet: Packet, service: Service) -> bytes | None:
    """Returns the endpoint (16 bytes) that a packet's QUIC connection ID names, None if it names none that is usable.

    The ID comes before the connection table: after a change of address the table knows nothing of the flow, or, where
    another client has had these addresses and ports, something wrong. Nothing is recorded, since every packet says it
    again, and whoever makes IDs up shall not fill the table with them.
    """
    if service.servers is None or packet.protocol != UDP:  # a ping may come to the service of a UDP port
        return None
    return service.servers.named_in(packets.datagram(packet))


def _known_as(flow: Flow, opens: bool, service: Service) -> tuple[Flow, bool]:
    """Returns the flow by which a connection is remembered, and whether it selects its backend in any case.

    Where a client keeps its backend, all its connections to a VIP address are one flow, which no SYN opens.
    """
    if not service.by_client:
        return flow, opens
    return Flow(flow.source, flow.destination, 0, 0, 0), False


class Statistics:
    """Counts what became of every frame; one thread counts, others may read."""

    def __init__(self) -> None:
        self.forwarded: Counter[tuple[str, bytes]] = Counter()  # (VIP, endpoint): packets
        self.bytes: Counter[tuple[str, bytes]] = Counter()  # the same in bytes, outer IP header and all
        self.redirected: Counter[bytes] = Counter()  # Maglev (16 bytes): fragments sent on to it
        self.reasons: Counter[Reason] = Counter()

    def count(self, decision: Decision) -> None:
        """Counts a decision that was carried out."""
        if decision.reason is not None:
            self.reasons[decision.reason] += 1
        elif decision.vip:
            self.forwarded[decision.vip, decision.endpoint] += 1
            self.bytes[decision.vip, decision.endpoint] += len(decision.packet)
        else:
            self.redirected[decision.endpoint] += 1

    def add(self, other: Statistics, expired_fragments: int = 0) -> None:
        """Adds what another has counted, and the fragments that have waited in vain."""
        self.forwarded += other.forwarded.copy()  # a copy is one step for the interpreter: the other goes on counting
        self.bytes += other.bytes.copy()
        self.redirected += other.redirected.copy()
        self.reasons += other.reasons.copy()
        if expired_fragments:
            self.reasons[Reason.FRAGMENT_EXPIRED] += expired_fragments

    def drops(self) -> dict[str, int]:
        """Returns packets by the reason for which they were dropped, what is none left out."""
        reasons = self.reasons.copy()
        return {reason.value: reasons[reason] for reason in sorted(reasons) if reason not in NO_DROPS}
