"""Judges the connection table, and the choice of a backend (Maglev §3.3), with a list of entries for an oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lab.classroom import Case, criterion
from maglev.errors import Discard, Reason
from maglev.flow import TCP, Flow, pack_address, selection_hash, unpack_address
from maglev.hashing import lookup_table
from maglev.vips import Backends, Service

REFERENCE = ("maglev.conntrack", "maglev.forwarding")
LIVE = {"topology": "rack", "endpoints": 4}

IDLE_S = 10.5  # all times are whole seconds, so nothing happens at the very moment when an entry expires
ENDPOINTS = [f"10.2.{number}.2" for number in range(1, 6)]
MAGLEV = pack_address("10.1.1.2")
MANY = 50_000


@criterion(step=1, hint="a dictionary from flow to backend; a second record takes the place of the first")
def remembers(student: Any, case: Case) -> None:
    """A flow that was recorded is found, with its newest backend; another is not."""
    story = Story(case, student.ConnectionTable(100, IDLE_S))
    story.record(1, "s1", 0)
    story.record(2, "s2", 1)
    for flow in (1, 2, 3):
        story.lookup(flow, 2)
    story.record(1, "s3", 3)
    story.lookup(1, 4)
    case.expect(len(story.table), 2, "the number of entries")


@criterion(
    step=2, hint="an entry is worth nothing once now - last use has reached idle_timeout_s, even if it is still there"
)
def forgets_the_idle(student: Any, case: Case) -> None:
    """A flow that was idle too long is not found any more, and leaves the table at the next record."""
    story = Story(case, student.ConnectionTable(100, IDLE_S))
    story.record(1, "s1", 0)
    story.record(2, "s2", 5)
    story.lookup(1, 11)
    story.lookup(2, 12)
    story.lookup(2, 40)
    story.record(3, "s3", 41)
    case.expect(len(story.table), 1, "the number of entries, all others having expired")


@criterion(step=2, hint="when was the last packet of this flow seen? lookup knows")
def use_keeps_alive(student: Any, case: Case) -> None:
    """Each lookup is a use: a flow that sends now and then is kept, however long ago it began."""
    story = Story(case, student.ConnectionTable(100, IDLE_S))
    story.record(1, "s1", 0)
    story.record(2, "s2", 0)
    for now in (8, 16, 24, 32):
        story.lookup(1, now)
    story.record(3, "s3", 33)
    story.lookup(1, 34)
    story.lookup(2, 34)


@criterion(step=2, hint="within_s takes the place of idle_timeout_s for this one question")
def a_shorter_time(student: Any, case: Case) -> None:
    """A VIP may ask for entries that were used more lately than the table remembers."""
    story = Story(case, student.ConnectionTable(100, IDLE_S))
    story.record(1, "s1", 0)
    story.lookup(1, 5, within_s=3.5)
    story.lookup(1, 7, within_s=8.5)


@criterion(
    step=3, hint="entries leave by expiry alone: who would you rather break, a new flow or one that is under way?"
)
def a_full_table_keeps_what_it_has(student: Any, case: Case) -> None:
    """A full table takes no new flow, counts that, and throws no living entry out; known flows may still change."""
    story = Story(case, student.ConnectionTable(3, IDLE_S))
    for flow in (1, 2, 3):
        story.record(flow, "s1", flow)
    story.record(4, "s2", 4)
    case.expect(story.table.overflows, 1, "overflows")
    story.record(2, "s3", 5)
    for flow in (1, 2, 3, 4):
        story.lookup(flow, 6)
    story.record(5, "s5", 20)
    story.lookup(5, 21)
    case.expect(story.table.overflows, 1, "overflows, since expired entries make room")


@criterion(step=3, hint="a table of capacity 0 is a table switched off")
def no_room_at_all(student: Any, case: Case) -> None:
    """A table of capacity 0 remembers nothing, and breaks nothing."""
    story = Story(case, student.ConnectionTable(0, IDLE_S))
    story.record(1, "s1", 0)
    story.lookup(1, 1)
    case.expect(len(story.table), 0, "the number of entries")


@criterion(
    step=3,
    seconds=8,
    hint="if entries stand in the order of their last use, those that have expired are all at the front: move_to_end",
)
def many_flows_in_time(student: Any, case: Case) -> None:
    """50,000 flows are recorded and looked up within 8 s, in a table that is nearly full, while others expire."""
    table = student.ConnectionTable(MANY, IDLE_S)
    case.step(f"{2 * MANY:,} flows come in 20 s, each asked for once more; the table has room for {MANY:,}")
    for number in range(2 * MANY):
        now = 20.0 * number / (2 * MANY)
        table.record(_flow(number), b"s1" * 8, now)
        table.lookup(_flow(number // 2), now)
    case.expect_that(0 < len(table) <= MANY, f"expected at most {MANY} entries, got {len(table)}")


@criterion(step=4, hint="peek asks what lookup asks, and leaves the time of the last use as it is")
def peeking_is_no_use(student: Any, case: Case) -> None:
    """Peeking finds what lookup finds, and keeps nothing alive."""
    story = Story(case, student.ConnectionTable(100, IDLE_S))
    story.record(1, "s1", 0)
    for now in (4, 8):
        story.peek(1, now)
    story.peek(1, 11)
    story.lookup(1, 12)
    story.peek(2, 12)


@criterion(step=4, hint="read the steps: somewhere your table and a plain list of entries part")
def a_long_story(student: Any, case: Case) -> None:
    """A thousand random steps end as they would with a plain list of entries."""
    story, now = Story(case, student.ConnectionTable(3, IDLE_S)), 0
    for _ in range(1000):
        now += case.random.choice([0, 1, 1, 2, 4])
        flow, what = case.random.randrange(14), case.random.random()
        if what < 0.4:
            story.record(flow, case.random.choice(["s1", "s2", "s3"]), now)
        elif what < 0.8:
            story.lookup(flow, now, case.random.choice([None, None, 4.5]))
        else:
            story.peek(flow, now)


@criterion(
    step=5, hint="a client may open a new connection from the ports of an old one: what does a SYN say about that?"
)
def a_syn_always_selects(student: Any, case: Case) -> None:
    """A SYN goes where the lookup table says, whatever is remembered, and that is remembered from then on."""
    choice = Choice(case, student)
    by_hash, other = choice.by_hash(1), choice.other_than(choice.by_hash(1))
    choice.remember(1, other, 0)
    choice.expect(1, True, 1, by_hash, "since a SYN selects")
    choice.expect(1, False, 2, by_hash, "since that is where its SYN went")


@criterion(step=5, hint="what is not a SYN asks the table first, and selects only if that has nothing")
def others_ask_the_table(student: Any, case: Case) -> None:
    """Other packets keep the backend that the table names; a flow that it does not know is selected, and remembered."""
    choice = Choice(case, student)
    other = choice.other_than(choice.by_hash(1))
    choice.remember(1, other, 0)
    choice.expect(1, False, 1, other, "since the table names it")
    choice.expect(2, False, 2, choice.by_hash(2), "since the table does not know the flow")
    case.step("the lookup table is another from now on")
    choice.service = _service([choice.other_than(choice.by_hash(2))], usable=ENDPOINTS)
    choice.expect(2, False, 3, choice.was[2], "since it went there before: was it remembered?")
    case.step("the VIP's own idle timeout, service.idle_timeout_s, is 1.5 s from now on")
    choice.service = replace(choice.service, idle_timeout_s=1.5)
    choice.expect(2, False, 5, choice.by_hash(2), "since it was idle for longer than its VIP allows")


@criterion(step=5, hint="known in service.backends.usable: what else would keep a flow on an endpoint that has died?")
def an_unhealthy_backend_is_left(student: Any, case: Case) -> None:
    """A flow leaves a backend that is not healthy any more, for good; one that is drained keeps its flows."""
    choice = Choice(case, student)
    first = choice.by_hash(1)
    choice.expect(1, True, 0, first, "since a SYN selects")
    rest = [name for name in ENDPOINTS if name != first]
    case.step(f"{first} is drained: it has no slots any more, but it is usable")
    choice.service = _service(rest, usable=ENDPOINTS)
    choice.expect(1, False, 1, first, "since it still serves the flows that it has")
    case.step(f"{first} is unhealthy: it is not usable any more")
    choice.service = _service(rest, usable=rest)
    second = choice.by_hash(1)
    choice.expect(1, False, 2, second, "since its own is unhealthy")
    case.step(f"{first} is healthy again")
    choice.service = _service(ENDPOINTS, usable=ENDPOINTS)
    choice.expect(1, False, 3, second, "since the flow has been there since: was it remembered?")


@criterion(step=5, hint="select returns None when the lookup table has nobody: that packet has nowhere to go")
def nobody_is_left(student: Any, case: Case) -> None:
    """Without any healthy backend the packet is dropped, with the reason, and nothing is remembered."""
    choice = Choice(case, student)
    choice.service = _service([], usable=[])
    for selects in (True, False):
        case.step(f"no backend is healthy; {'a SYN' if selects else 'a packet'} comes")
        try:
            got = choice.forwarder.choose(_flow(1), selects, choice.service, 0.0)
        except Discard as discard:
            case.expect(discard.reason.name, Reason.NO_BACKEND.name, "the reason")
        else:
            case.wrong(f"expected Discard with NO_BACKEND, got {_named(got)}")
    case.expect(len(choice.forwarder.connections), 0, "the number of entries")


@criterion(step=5, hint="follow one connection that moved: what did the table hold for it before the endpoint joined?")
def connections_survive_a_new_endpoint(student: Any, case: Case) -> None:
    """When an endpoint joins, no connection moves; by hashing alone some would."""
    choice = Choice(case, student)
    choice.service = _service(ENDPOINTS[:4], usable=ENDPOINTS[:4])
    case.step("500 connections are opened over s1 to s4")
    before = {number: choice.ask(number, True, 0) for number in range(500)}
    choice.service = _service(ENDPOINTS, usable=ENDPOINTS)
    by_hash = sum(choice.by_hash(number) != before[number] for number in before)
    case.step(f"s5 joins; by hashing alone {by_hash} of them would move")
    moved = [number for number in before if choice.ask(number, False, 5) != before[number]]
    case.expect(len(moved), 0, "the number of connections that moved")


# What is told, and what is expected


class Story:
    """Does something to a table, and the same to a plain list of entries: [flow, backend, last use]."""

    def __init__(self, case: Case, table: Any) -> None:
        self.case, self.table = case, table
        self.entries: list[list[Any]] = []
        case.step(f"a table of {table.capacity} entries, whose idle timeout is {IDLE_S} s")

    def record(self, flow: int, backend: str, now: int) -> None:
        """Records, and expects it to be taken or refused."""
        self.entries = [entry for entry in self.entries if now - entry[2] < IDLE_S]
        known = next((entry for entry in self.entries if entry[0] == flow), None)
        taken = known is not None or len(self.entries) < self.table.capacity
        if known:
            known[1:] = backend, now
        elif taken:
            self.entries.append([flow, backend, now])
        self.case.step(f"at {now} s recorded {backend} for c1:{40000 + flow}")
        got = self.table.record(_flow(flow), _packed(backend), float(now))
        self.case.expect(got, taken, "True for what is remembered, False for want of room")

    def lookup(self, flow: int, now: int, within_s: float | None = None) -> None:
        """Looks a flow up, and expects what is remembered."""
        entry = self._alive(flow, now, within_s)
        if entry:
            entry[2] = now
        self._ask("looked up", self.table.lookup, flow, now, within_s, entry)

    def peek(self, flow: int, now: int) -> None:
        """Looks without touching, and expects the same."""
        self._ask("peeked at", self.table.peek, flow, now, None, self._alive(flow, now, None))

    def _alive(self, flow: int, now: int, within_s: float | None) -> list[Any] | None:
        longest = IDLE_S if within_s is None else within_s
        return next((entry for entry in self.entries if entry[0] == flow and now - entry[2] < longest), None)

    def _ask(self, verb: str, ask: Any, flow: int, now: int, within_s: float | None, entry: list[Any] | None) -> None:
        within = "" if within_s is None else f", within {within_s} s"
        self.case.step(f"at {now} s {verb} c1:{40000 + flow}{within}")
        got = ask(_flow(flow), float(now), within_s)
        expected = entry[1] if entry else None
        name = None if got is None else got.rstrip(b"\0").decode(errors="replace")
        self.case.expect(name, expected, "the backend")


class Choice:
    """A forwarder of the student's, with the student's table, and the service that it is asked about."""

    def __init__(self, case: Case, student: Any) -> None:
        self.case = case
        self.forwarder = student.Forwarder(MAGLEV, student.ConnectionTable(1000, 60.0))
        self.service = _service(ENDPOINTS, usable=ENDPOINTS)
        self.was: dict[int, str] = {}

    def by_hash(self, flow: int) -> str:
        """Returns whom the lookup table names for a flow."""
        return _named(self.service.backends.select(selection_hash(_flow(flow))))

    def other_than(self, name: str) -> str:
        """Returns another endpoint."""
        return self.case.random.choice([each for each in ENDPOINTS if each != name])

    def remember(self, flow: int, name: str, now: int) -> None:
        """Puts an endpoint into the table, as after a change of the lookup table."""
        self.case.step(
            f"at {now} s the table remembers {name} for c1:{40000 + flow}; by hash it is {self.by_hash(flow)}"
        )
        self.forwarder.connections.record(_flow(flow), pack_address(name), float(now))

    def ask(self, flow: int, selects: bool, now: int) -> str:
        """Returns what is chosen for a packet."""
        return _named(self.forwarder.choose(_flow(flow), selects, self.service, float(now)))

    def expect(self, flow: int, selects: bool, now: int, expected: str, why: str) -> None:
        """Expects a packet to go to an endpoint."""
        self.case.step(f"at {now} s a {'SYN' if selects else 'packet'} came from c1:{40000 + flow}")
        self.was[flow] = got = self.ask(flow, selects, now)
        self.case.expect_that(got == expected, f"expected {expected}, {why}; got {got}")


def _service(members: Sequence[str], usable: Sequence[str]) -> Service:
    packed = [pack_address(name) for name in members]
    table = lookup_table(members, 251)
    slots = [packed[index] if index >= 0 else None for index in table]
    return Service("www", Backends(packed, table, slots, frozenset(map(pack_address, usable)), ""))


def _flow(number: int) -> Flow:
    source = pack_address("10.0.1.2")
    return Flow(source, pack_address("192.0.2.1"), TCP, (40000 + number) % 65536, 80 + (40000 + number) // 65536)


def _packed(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def _named(endpoint: Any) -> str:
    is_address = isinstance(endpoint, bytes) and len(endpoint) == 16
    return str(unpack_address(endpoint)) if is_address else repr(endpoint)
