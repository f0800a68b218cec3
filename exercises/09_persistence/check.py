"""Judges theory about persistence (Maglev §3.3): connection by connection, by simulation, and in the live lab."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from lab.classroom import Case, criterion
from lab.classroom.asking import ask
from lab.persistence import simulated
from lab.persistence.events import (
    CONNECTIONS,
    EVENTS,
    FLOOD,
    MAGLEVS,
    PROTECTIONS,
    Event,
    Flood,
    Protection,
    options,
    small_tables,
)
from lab.persistence.theory import Question, question, within_chance
from maglev import persistence

REFERENCE = "maglev.persistence"
LIVE = {"topology": "rack", "maglevs": 3, "endpoints": 5, "hash": "modulo", "configure": small_tables}

NEAR = 1e-9
MODULO_ALONE, MODULO_TABLE = Protection("modulo", False), Protection("modulo", True)
MAGLEV_TABLE = Protection("maglev", True)


@criterion(step=1, hint="ask in this order: is its endpoint dead? does the Maglev know it? what does its slot say?")
def one_connection_at_a_time(student: Any, case: Case) -> None:
    """A connection is doomed with its endpoint, and breaks only if neither table leads to the endpoint that it has."""
    for endpoint, named, is_recorded, dead in product((1, 2), (1, 2), (True, False), ((), (1,), (2,), (1, 3))):
        if named not in dead:  # who is dead stands in no slot
            got = case.call(student.fate, endpoint, dead, named, is_recorded)
            case.expect(got, _fate(endpoint, dead, named, is_recorded), "its fate")


@criterion(step=2, hint="with the same table before and after, whoever asks it finds whom it found before")
def a_maglev_alone_breaks_nothing(student: Any, case: Case) -> None:
    """While the lookup table stays as it is, nothing breaks, whatever ECMP moves and whatever was recorded."""
    table = _table(case, 5, 13)
    for moved, recorded in ((1 / 3, 1.0), (1 / 2, 0.0), (1.0, 0.5)):
        _expect_shares(case, student, table, table, (), moved, recorded)


@criterion(step=2, hint="a slot of the dead has changed too, but nobody is left whom it could have kept")
def the_dead_are_counted_apart(student: Any, case: Case) -> None:
    """The connections of an endpoint that died are doomed, and not broken as well."""
    before = _table(case, 4, 12)
    dead = (before[0],)
    after = [number if number not in dead else number % 4 + 1 for number in before]
    for recorded in (0.0, 1.0):
        _expect_shares(case, student, before, after, dead, 0.0, recorded)


@criterion(step=2, hint="a connection is safe if its Maglev has recorded it and it stays there: both, not either")
def shares_multiply(student: Any, case: Case) -> None:
    """What breaks is the share of changed slots, times the share that no connection table protects."""
    for _ in range(8):
        before, after = _table(case, 5, 13), _table(case, 5, 13)
        dead = case.random.sample(range(1, 6), case.random.randrange(2))
        after = [number if number not in dead else dead[0] % 5 + 1 for number in after]
        moved, recorded = (case.random.choice((0.0, 0.25, 0.5, 1.0)) for _ in range(2))
        _expect_shares(case, student, before, after, dead, moved, recorded)


@criterion(step=2, seconds=15, hint="65,537 slots are many for a loop within a loop, and few for one; or take NumPy")
def real_tables_in_time(student: Any, case: Case) -> None:
    """Predictions for tables of 65,537 slots are right, and there within 15 s."""
    for hash_name, event in product(("modulo", "maglev"), ("both", "drained")):
        asked = question(hash_name, EVENTS[event])
        case.step(f"{hash_name}: {_changes(EVENTS[event])}")
        _expect_shares(case, student, asked.before, asked.after, asked.dead, asked.moved, 1.0)


@criterion(step=3, hint="each packet of a flood is a new flow, and each new flow takes an entry while there is one")
def what_a_flood_leaves(student: Any, case: Case) -> None:
    """A flood takes an entry for each of its flows, and what it leaves is for connections."""
    for flood in (Flood(1000, 100, 5, 60), Flood(1000, 100, 9.5, 60), Flood(1000, 100, 30, 60), Flood(500, 0, 9, 60)):
        for opened in (100, 1000, 0):
            _expect_recorded(case, student, flood, opened)


@criterion(
    step=3, hint="a flow of one packet is idle from then on: how many of them are not yet older than the timeout?"
)
def floods_expire(student: Any, case: Case) -> None:
    """Entries leave idle_timeout_s after their last packet, so a slow flood never fills the table, however long."""
    for seconds in (30, 60, 600, 86400):
        _expect_recorded(case, student, Flood(10_000, 100, seconds, 60), 8000)
    _expect_recorded(case, student, Flood(10_000, 100, 600, 5), 20_000)


@criterion(step=3, hint="a table of no entries records nothing, flood or not")
def no_table_at_all(student: Any, case: Case) -> None:
    """A table of capacity 0 records nothing."""
    _expect_recorded(case, student, Flood(0, 0, 0, 60), 100)


@criterion(step=4, hint="go by the names of those that were alive before; a connection that was refused never lived")
def only_who_lived_can_break(student: Any, case: Case) -> None:
    """Only connections that were alive before count, however their end is called."""
    before = [
        Seen("c1/1", "s1"),
        Seen("c1/2", "s2"),
        Seen("c1/3", "s1", "reset"),
        Seen("c1/4", "s2"),
        Seen("c2/1", "s1"),
    ]
    after = [Seen("c1/1", "s1"), Seen("c1/2", "s2", "reset"), Seen("c1/3", "s1", "reset"), Seen("c1/4", "", "stalled")]
    after = case.random.sample([*after, Seen("c2/1", "s1"), Seen("c2/2", "", "refused")], 6)
    _expect_counts(case, student, before, after, ())


@criterion(step=4, hint="whose endpoint was dead is decided by the endpoint that it had before")
def doomed_is_not_broken(student: Any, case: Case) -> None:
    """Connections of endpoints that died are doomed, even while their end has not been noticed; the others break."""
    before = [Seen(f"c1/{n}", f"s{n % 4 + 1}") for n in range(1, 13)]
    after = [
        Seen(e.name, "" if n % 3 else e.endpoint, "alive" if n % 3 == 0 else "reset") for n, e in enumerate(before)
    ]
    for dead in ((), ("s1",), ("s2", "s4")):
        _expect_counts(case, student, before, after, dead)


@criterion(step=5, seconds=40, hint="run maglab persistence --simulate --solution with your file: which rows say no?")
def simulations_agree(student: Any, case: Case) -> None:
    """Simulated connections break as predicted: five events, two hashes, with and without tables."""
    for protection, event in product(PROTECTIONS, EVENTS.values()):
        case.step(f"{protection}: {_changes(event)} under {simulated.FLOWS:,} connections")
        counts = simulated.measured(protection, event, seed=case.seed)
        known = 1.0 if protection.table else 0.0
        if protection.table and event.flood:
            known = student.recorded_share(*_numbers(simulated.FLOOD), simulated.FLOWS // MAGLEVS)
        _expect_agreement(case, counts, student.expected(*_arguments(question(protection.hash, event)), known))


@criterion(
    step=6, seconds=60, lab=options(MODULO_ALONE),
    hint="without a table only the slot counts: look for an endpoint that stands in the same slot before and after",
)  # fmt: skip
def live_an_endpoint_dies_under_modulo(lab: Any, case: Case) -> None:
    """In a lab without connection tables, with modulo, as many connections break as predicted when an endpoint dies."""
    _expect_live(lab, case, MODULO_ALONE, EVENTS["endpoint"])


@criterion(
    step=6, seconds=60, lab=options(MAGLEV_TABLE),
    hint="the table protects whom ECMP leaves at the Maglev that knows it; the drained endpoint is not dead",
)  # fmt: skip
def live_a_drain_and_a_crash(lab: Any, case: Case) -> None:
    """In a lab with everything on, a drain and then a crash break as many connections as predicted."""
    _expect_live(lab, case, MAGLEV_TABLE, EVENTS["drained"])


@criterion(
    step=6, seconds=60, lab=options(MODULO_TABLE),
    hint="the flood came first: how many entries are left for the connections that are opened after it?",
)  # fmt: skip
def live_a_flood_fills_the_tables(lab: Any, case: Case) -> None:
    """In a lab whose tables a flood has filled, as many connections break as predicted when an endpoint dies."""
    _expect_live(lab, case, MODULO_TABLE, EVENTS["flood"])


# What is expected, in the plainest way


@dataclass(frozen=True)
class Seen:
    """A connection, as a holder sees it."""

    name: str
    endpoint: str
    fate: str = "alive"


def _fate(endpoint: int, dead: Sequence[int], named: int, is_recorded: bool) -> str:
    leads = {endpoint} if is_recorded or named == endpoint else set()
    return "doomed" if endpoint in dead else "lives" if leads else "breaks"


def _table(case: Case, endpoints: int, slots: int) -> list[int]:
    return [case.random.randrange(1, endpoints + 1) for _ in range(slots)]


def _expect_shares(
    case: Case,
    student: Any,
    before: Sequence[int],
    after: Sequence[int],
    dead: Sequence[int],
    moved: float,
    known: float,
) -> None:
    """Adds up every kind of connection there is: each slot, moved or not, recorded or not, each with its share."""
    shares = {"breaks": 0.0, "doomed": 0.0, "lives": 0.0}
    moves, records = ((True, moved), (False, 1 - moved)), ((True, known), (False, 1 - known))
    slots = Counter(zip(map(int, before), map(int, after), strict=True))
    for (old, new), ((has_moved, p), (was_recorded, q)) in product(slots, product(moves, records)):
        shares[_fate(old, dead, new, was_recorded and not has_moved)] += slots[old, new] * p * q / len(before)
    got = case.call(student.expected, before, after, dead, moved, known)
    for value, kind, said in zip(_pair(case, got), ("breaks", "doomed"), ("breaks", "is doomed"), strict=True):
        changed = sum(count for (old, new), count in slots.items() if old != new)
        why = f"{changed} of {len(before)} slots change, {moved:.2f} move, {known:.2f} were recorded"
        case.expect_that(
            abs(value - shares[kind]) < NEAR,
            f"{why}: expected that the share {shares[kind]:.4f} {said}, got {value:.4f}",
        )


def _expect_recorded(case: Case, student: Any, flood: Flood, opened: int) -> None:
    """Follows the flood second by second, and those of its entries that still live."""
    living: dict[float, float] = {}
    second, rest = 0, flood.seconds
    while rest > 0:
        living = {at: count for at, count in living.items() if second - at < flood.idle_timeout_s}
        living[second] = min(flood.per_s * min(1, rest), flood.capacity - sum(living.values()))
        second, rest = second + 1, rest - 1
    left = flood.capacity - sum(living.values())
    expected = min(1.0, left / opened) if opened else 1.0
    got = case.call(student.recorded_share, *_numbers(flood), opened)
    case.expect_that(isinstance(got, int | float), f"expected a share, got {got!r}, which is no number")
    case.expect_that(
        abs(got - expected) < NEAR,
        f"{flood.capacity - left:,.0f} of {flood.capacity:,} entries are the flood's at its end: expected "
        f"{expected:.4f} of {opened:,} connections recorded, got {got:.4f}",
    )


def _expect_counts(
    case: Case, student: Any, before: Sequence[Seen], after: Sequence[Seen], dead: Sequence[str]
) -> None:
    for one in before:
        end = next(other for other in after if other.name == one.name)
        case.step(f"{one.name} with {one.endpoint}: {one.fate}, then {end.fate}")
    alive = [one for one in before if one.fate == "alive"]
    doomed = [one for one in alive if one.endpoint in dead]
    ends = {other.name: other.fate for other in after}
    broken = [one for one in alive if one not in doomed and ends[one.name] != "alive"]
    case.step(f"{', '.join(dead) or 'nobody'} died")
    got = student.counted(before, after, dead)
    case.expect_that(got is not None, "expected Counts, got None: is there a return?")
    case.expect(tuple(got), (len(alive), len(broken), len(doomed)), "who lived, who broke, and who was doomed")


def _expect_agreement(case: Case, counts: Any, theory: Any) -> None:
    shares, words = _pair(case, theory), (("break", "did"), ("are doomed", "were"))
    for value, number, (said, done) in zip(shares, (counts.broken, counts.doomed), words, strict=True):
        case.expect_that(
            0 <= value <= 1 and within_chance(number, counts.lived, value, 1e-6),
            f"predicted that {100 * value:.2f} % of {counts.lived:,} {said}; {number:,} {done}, "
            f"{100 * number / counts.lived:.2f} %, and chance does not do that",
        )


def _expect_live(lab: Any, case: Case, protection: Protection, event: Event) -> None:
    """Asks the student's functions before anything is done, and then counts."""
    known = 1.0 if protection.table else 0.0
    if event.flood:
        known = ask(lab, REFERENCE, "recorded_share", *_numbers(FLOOD), round(CONNECTIONS / MAGLEVS))
    theory = ask(lab, REFERENCE, "expected", *_arguments(question(protection.hash, event)), known)
    case.step(f"{protection}; predicted: {100 * theory[0]:.2f} % break, {100 * theory[1]:.2f} % are doomed")
    case.step(f"{CONNECTIONS} connections{', opened after a flood' if event.flood else ''}; {_changes(event)}")
    from lab.persistence.live import watched  # which imports all of the laboratory

    before, after = watched(lab, event, CONNECTIONS)
    _expect_agreement(case, persistence.counted(before, after, event.dead), theory)


def _arguments(asked: Question) -> tuple[Any, ...]:
    return asked.before, asked.after, asked.dead, asked.moved


def _numbers(flood: Flood) -> tuple[float, ...]:
    return flood.capacity, flood.per_s, flood.seconds, flood.idle_timeout_s


def _changes(event: Event) -> str:
    flood = "a flood, then " if event.flood else ""
    return flood + ", ".join(map(str, event.changes))


def _pair(case: Case, got: Any) -> tuple[float, float]:
    """Returns what should be two shares."""
    case.expect_that(got is not None, "expected Shares(broken, doomed), got None: is there a return?")
    broken, doomed = got
    return float(broken), float(doomed)
