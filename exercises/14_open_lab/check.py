"""Judges a scheme of the student's own: the contract that every scheme has to keep, and what it claims, measured.

Of all measures less is better; each is taken of Maglev hashing too, with the same names, in the same process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any, get_args

import numpy as np

from lab.classroom import Case, criterion, elsewhere
from maglev.comparison import disruption, over_provisioning, table_without
from maglev.contender import NONCE_BYTES, Axis
from maglev.hashing import lookup_table as maglev_table

REFERENCE = ("maglev.contender", "maglev.hashing")
GIVEN = ("maglev.hashing",)  # one may build upon Maglev's own table

BACKENDS, SIZE = 50, 5003  # a hundred slots a backend, as in §5.3, and few enough for plain Python
TRIALS = 3
BETTER = 0.95  # of Maglev's measure, at most, is better
SAME = 1.05  # of it, at most, is not worse
SLOWER = 3.0  # times as long, at most, is not worse: clocks are not so sure
MARGIN = 1.1  # by which a cost may exceed what was said


def small_lab(document: dict[str, Any]) -> None:
    """Gives a lab small tables: yours may be made in plain Python, for six VIPs, on a machine that has other work."""
    document["forwarder"]["table_size"] = 2003


LIVE = {"topology": "rack", "configure": small_lab}


@criterion(step=1, hint="a number for each slot, and no slot without: whose is the last one?", seconds=30)
def a_backend_for_every_slot(student: Any, case: Case) -> None:
    """Every slot has a backend; one of weight 0 has none, and where there is nobody every slot holds NOBODY."""
    names = _names(case, 7)
    for weights in (None, [1, 1, 0, 1, 1, 0, 1]):
        table = _table(case, student, names, 251, weights)
        allowed = {place for place in range(7) if weights is None or weights[place]}
        case.expect(sorted(set(table)), sorted(allowed), "the backends that have slots")
    for names, weights in (([], None), (["alone"], [0])):
        case.expect(set(_table(case, student, names, 11, weights)), {-1}, "what is in the slots, there being nobody")


@criterion(step=1, hint="sort the names, and use name_hashes: Python's own hash differs between processes", seconds=30)
def all_maglevs_agree(student: Any, case: Case) -> None:
    """Maglevs that know the names in another order, or have just started, give every slot to the same name."""
    names = _names(case, 7)
    shuffled = case.random.sample(names, len(names))
    mine = _holders(names, _table(case, student, names, 251))
    _expect_same(case, mine, _holders(shuffled, _table(case, student, shuffled, 251)), "a Maglev with another order")
    case.step("another Maglev started, as a process of its own, and made its table, in another order")
    there = _holders(shuffled, list(map(int, elsewhere.numbers(case, student, "lookup_table", shuffled, 251))))
    _expect_same(case, mine, there, "the Maglev that has just started")


@criterion(step=1, hint="what does your function remember from the last time? A Maglev may have been away", seconds=30)
def the_past_does_not_matter(student: Any, case: Case) -> None:
    """A table hangs on who is there now, not on who was there before."""
    names = _names(case, 7)
    mine = _holders(names, _table(case, student, names, 251))
    _table(case, student, names[:3], 251)
    _expect_same(case, mine, _holders(names, _table(case, student, names, 251)), "the Maglev that saw four leave")


@criterion(step=1, hint="a machine of weight 2 takes twice as much as one of weight 1", seconds=30)
def shares_follow_weights(student: Any, case: Case) -> None:
    """Slots follow the weights, within a fifth of what is due."""
    weights = case.random.sample([1, 1.5, 2, 3, 4], 5)
    slots = np.bincount(_table(case, student, _names(case, 5), SIZE, weights), minlength=5)
    for place, weight in enumerate(weights):
        due = SIZE * weight / sum(weights)
        sentence = f"weight {weight} of {sum(weights)}: expected some {due:.0f} slots, got {slots[place]}"
        case.expect_that(abs(slots[place] / due - 1) < 0.2, sentence)


@criterion(step=2, hint="measure first, on paper or in a shell; then claim", seconds=60)
def beats_maglev(student: Any, case: Case) -> None:
    """On the axis that is claimed, the scheme does better than Maglev hashing."""
    claimed = _claim(case, student)
    found = _measured(case, student)
    for axis, (mine, reference) in found.items():
        case.measure(axis, mine, reference)
    mine, reference = found[claimed.beats]
    wanted = f"expected less than Maglev hashing's {claimed.beats}, {reference:.4g}, with the same names"
    case.expect_that(mine < BETTER * reference, f"{wanted}; got {mine:.4g}")


@criterion(step=2, hint="nothing is free; what is the least that somebody who runs it would want to know?", seconds=60)
def says_what_it_costs(student: Any, case: Case) -> None:
    """Every axis on which it does worse is named, with what it comes to."""
    claimed = _claim(case, student)
    for axis, (mine, reference) in _measured(case, student).items():
        if mine <= (SLOWER if axis == "build time" else SAME) * reference + 1e-9:
            continue
        worse = f"{axis} is {mine:.4g}, where Maglev hashing has {reference:.4g}"
        case.expect_that(axis in claimed.costs, f"{worse}: expected that among the costs, got {dict(claimed.costs)}")
        said = claimed.costs[axis]
        case.expect_that(mine <= MARGIN * said, f"{worse}: expected at most {said:.4g}, as the costs say")


@criterion(
    step=2, seconds=20, hint="maglab try 14, then: connections 60, kill m1, wait, conns",
    lab={"topology": "rack", "maglevs": 2, "endpoints": 3, "configure": small_lab},
)  # fmt: skip
def carries_live_traffic(lab: Any, case: Case) -> None:
    """With it in the Maglevs, connections live on when a Maglev dies."""
    with lab.connections(60) as conns:
        conns.wait_settled()
        case.step("60 connections are open; m1 is killed")
        with lab.kill("m1"):
            lab.wait_converged()
            conns.wait_settled()
            case.expect(conns.broken, 0, "the number of connections that broke")


@criterion(step=3, hint="what does a backend know of itself that all Maglevs know too?", seconds=30)
def connection_ids_name_their_backend(student: Any, case: Case) -> None:
    """A connection ID leads back to the backend that gave it, whatever the nonce, and has 8 to 20 bytes."""
    if student.backend_of(student.connection_id(0, bytes(NONCE_BYTES))) is None:
        case.skip("connection IDs name nobody here: connections go by their 5-tuple, as without step 3")
    seen = set()
    for backend in [0, 1, 255, 256, *(case.random.randrange(1000) for _ in range(20))]:
        given = case.call(student.connection_id, backend, case.random.randbytes(NONCE_BYTES))
        case.expect_that(8 <= len(given) <= 20, f"expected 8 to 20 bytes, got {len(given)}")
        case.expect(case.call(student.backend_of, given), backend, "the backend that gave it")
        seen.add(given)
    case.expect(len(seen), 24, "the number of different connection IDs")
    case.call(student.backend_of, b"")


# Measures, all of which are better if they are less


def _measured(case: Case, student: Any) -> dict[Axis, tuple[float, float]]:
    """Returns, by axis, what a scheme comes to and what Maglev hashing comes to."""
    names = [_names(case, BACKENDS) for _ in range(TRIALS)]
    gone = case.random.sample(range(BACKENDS), TRIALS)
    case.step(f"measured with {BACKENDS} backends and {SIZE} slots, {TRIALS} times")
    mine, reference = (_of_tables(build, names, gone) for build in (student.lookup_table, maglev_table))
    paces = _paces(student.lookup_table, names[0])
    migrations = _migration(case, student.connection_id, student.backend_of), _migration(case, None, None)
    return {
        "balance": (mine["balance"], reference["balance"]),
        "disruption": (mine["disruption"], reference["disruption"]),
        "build time": (paces, 1.0),
        "memory": (mine["memory"], reference["memory"]),
        "migration": migrations,
    }


def _of_tables(build: Callable[..., Any], names: list[list[str]], gone: list[int]) -> Mapping[str, float]:
    """Returns the mean over some trials: over-provisioning, the share of others' slots that change, bytes a slot."""
    tables = [build(listed, SIZE) for listed in names]
    after = [
        table_without(lambda stay, size: np.asarray(build(stay, size)), listed, SIZE, [which])
        for listed, which in zip(names, gone, strict=True)
    ]
    pairs = zip(tables, after, gone, strict=True)
    return {
        "balance": fmean(over_provisioning(np.asarray(table), BACKENDS) for table in tables),
        "disruption": fmean(disruption(np.asarray(old), new, [which]).of_others for old, new, which in pairs),
        "memory": fmean(_bytes(table) / SIZE for table in tables),
    }


def _bytes(table: Any) -> int:
    """Returns what a table takes; a list has a pointer of 8 bytes to each number."""
    return int(table.nbytes) if isinstance(table, np.ndarray) else 8 * len(table)


def _paces(build: Callable[..., Any], names: list[str]) -> float:
    """Returns how much longer a table takes than with Maglev hashing: the least of some times each, in turns."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(5):
        for maglev, make in ((True, maglev_table), (False, build)):
            began = time.perf_counter()
            make(names, SIZE)
            times[maglev].append(time.perf_counter() - began)
    return min(times[False]) / min(times[True])


def _migration(case: Case, connection_id: Any, backend_of: Any) -> float:
    """Returns which share of QUIC connections loses its backend when the client's address changes."""
    lost = 0
    for _ in range(1000):
        backend, elsewhere = case.random.randrange(BACKENDS), case.random.randrange(BACKENDS)
        named = backend_of(connection_id(backend, case.random.randbytes(NONCE_BYTES))) if backend_of else None
        lost += (elsewhere if named is None else named) != backend
    return lost / 1000


# What is expected


def _claim(case: Case, student: Any) -> Any:
    claimed = case.call(student.claim)
    axes = get_args(Axis)
    case.expect_that(hasattr(claimed, "costs"), f"expected a Claim, got {claimed!r}")
    for axis in (claimed.beats, *claimed.costs):
        case.expect_that(axis in axes, f"expected one of {', '.join(axes)}, got {axis!r}")
    return claimed


def _table(case: Case, student: Any, names: list[str], size: int, weights: Any = None) -> list[int]:
    """Returns a table as a list of numbers."""
    table = case.call(student.lookup_table, names, size, weights)
    case.expect_that(table is not None, "expected a table, got None: is there a return?")
    numbers = [int(number) for number in table]
    case.expect(len(numbers), size, "the number of slots")
    wrong = [number for number in numbers if not -1 <= number < len(names)]
    case.expect_that(not wrong, f"expected places in a list of {len(names)} names, got {wrong[:1]}")
    return numbers


def _names(case: Case, count: int) -> list[str]:
    nets = case.random.sample(range(1, 60000), count)
    return [f"10.{net >> 8}.{net & 255}.2" for net in nets]


def _holders(names: list[str], table: list[int]) -> list[str]:
    return [names[place] for place in table]


def _expect_same(case: Case, mine: list[str], other: list[str], who: str) -> None:
    for slot, (one, two) in enumerate(zip(mine, other, strict=True)):
        if one != two:
            case.wrong(f"this Maglev gives slot {slot} to {one}, {who} to {two}")
