"""Judges Maglev hashing (Maglev §3.4), and the measures by which it is compared (§5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.classroom import Case, criterion, elsewhere
from maglev.baselines import TABLES

REFERENCE = ("maglev.hashing", "maglev.comparison")

TABLE_1 = ((3, 0, 3), (4, 2, 1), 7)  # the paper's offsets, skips and M
SIZES = (7, 11, 13, 251, 509, 1021)  # primes


def small_lab(document: dict[str, Any]) -> None:
    """Gives a lab small tables: yours may be made in plain Python, for six VIPs, on a machine that has other work."""
    document["forwarder"]["table_size"] = 2003


LIVE = {"topology": "rack", "configure": small_lab}


@criterion(step=1, hint="the j-th slot is offset + j times skip, modulo M; the first has j = 0")
def permutation_in_order(student: Any, case: Case) -> None:
    """A permutation lists every slot once, in the backend's order."""
    for offset, skip, size in [(3, 4, 7), (0, 2, 7), (3, 1, 7), *(_wishes(case, size) for size in SIZES)]:
        listed = case.call(student.permutation, offset, skip, size)
        case.expect(_numbers(case, listed), _list(offset, skip, size), "all slots, each as far from the last as skip")


@criterion(step=2, hint="whose turn it is walks its own list, from where it stopped, to the first slot that is free")
def table_1(student: Any, case: Case) -> None:
    """The paper's table 1 comes out, before and after B1 has gone."""
    _expect_turns(case, student.populate, *TABLE_1)
    case.step("now without B1: what was B2 has become number 1")
    _expect_turns(case, student.populate, (3, 3), (4, 1), 7)


@criterion(step=2, hint="the last round may be short: stop when the last slot is taken, not when a round is over")
def turns_are_fair(student: Any, case: Case) -> None:
    """Any number of backends takes turns until all slots are taken, also when there are more backends than slots."""
    for size, backends in [(7, 1), (11, 3), (251, 12), (13, 20), (1021, 100)]:
        wishes = [_wishes(case, size) for _ in range(backends)]
        _expect_turns(case, student.populate, [each[0] for each in wishes], [each[1] for each in wishes], size)


@criterion(
    step=2,
    seconds=8,
    hint="a thousand lists of 65,537 slots are 65 million numbers, of which you look at a hundredth: keep only where "
    "each backend is on its list",
)
def large_table_in_time(student: Any, case: Case) -> None:
    """A table of 65,537 slots for 1,000 backends is there within 8 s."""
    wishes = [_wishes(case, 65537) for _ in range(1000)]
    table = case.call(student.populate, [each[0] for each in wishes], [each[1] for each in wishes], 65537)
    numbers = _numbers(case, table)
    case.expect(len(numbers), 65537, "its number of slots")
    slots = np.bincount(numbers, minlength=1000)
    case.expect(sorted(set(slots.tolist())), [65, 66], "the numbers of slots that backends have")


@criterion(step=3, hint="sort the names before you let them take turns, and remember which place each had")
def order_does_not_matter(student: Any, case: Case) -> None:
    """Maglevs that list the same names in another order give every slot to the same name."""
    names, shuffled = _names_twice(case)
    tables = [_numbers(case, case.call(student.lookup_table, listed, 251)) for listed in (names, shuffled)]
    _expect_alike(case, names, tables[0], shuffled, tables[1])
    case.expect(sorted(set(tables[0])), list(range(7)), "the backends that have slots")


@criterion(step=3, hint="take offset_and_skip as it is given: Python's hash() is another in every process", seconds=20)
def others_agree(student: Any, case: Case) -> None:
    """A Maglev that has just started gives every slot to the same name."""
    names, shuffled = _names_twice(case)
    mine = _numbers(case, case.call(student.lookup_table, names, 251))
    case.step("another Maglev started, as a process of its own, and made its table")
    theirs = _numbers(case, elsewhere.numbers(case, student, "lookup_table", shuffled, 251))
    _expect_alike(case, names, mine, shuffled, theirs)


@criterion(step=3, hint="what should a packet find in its slot when all endpoints are ill?")
def nobody_at_all(student: Any, case: Case) -> None:
    """Without backends every slot holds NOBODY, -1."""
    case.expect(_numbers(case, case.call(student.lookup_table, [], 11)), [-1] * 11, "nobody in all 11 slots")


@criterion(step=4, hint="a backend that is drained has weight 0: it gets no turn at all, not a rare one")
def weight_zero_gets_nothing(student: Any, case: Case) -> None:
    """A backend of weight 0 has no slot, and the others have what they would have without it."""
    offsets, skips, size = TABLE_1
    table = _numbers(case, case.call(student.populate, offsets, skips, size, weights=[1, 0, 1]))
    case.expect(table, [0, 0, 0, 0, 2, 2, 2], "table 1 without B1")
    case.expect(_numbers(case, case.call(student.populate, [1], [1], 7, weights=[0])), [-1] * 7, "nobody, 7 times")


@criterion(step=4, hint="let each backend collect its weight every round, and pay the largest weight for a turn")
def weights_are_shares(student: Any, case: Case) -> None:
    """Slots follow the weights, and equal weights, whatever they are, change nothing."""
    wishes = [_wishes(case, 1021) for _ in range(5)]
    offsets, skips = [each[0] for each in wishes], [each[1] for each in wishes]
    weights = case.random.sample([0.5, 1, 2, 3, 5], 5)
    table = _numbers(case, case.call(student.populate, offsets, skips, 1021, weights=weights))
    due, slots = 1021 * np.array(weights) / sum(weights), np.bincount(table, minlength=5)
    worst = int(np.argmax(abs(slots / due - 1)))
    sentence = f"backend {worst} has weight {weights[worst]} of {sum(weights)}: expected some {due[worst]:.0f} slots"
    case.expect_that(abs(slots[worst] - due[worst]) <= max(3, 0.02 * due[worst]), f"{sentence}, got {slots[worst]}")
    equal = _numbers(case, case.call(student.populate, offsets, skips, 1021, weights=[2.5] * 5))
    plain = _numbers(case, case.call(student.populate, offsets, skips, 1021))
    case.expect(equal, plain, "the table of equal weights, which is that of none")


@criterion(step=5, hint="the mean share is M / N, also when some backends have no slot at all")
def over_provisioning_is_of_the_mean(student: Any, case: Case) -> None:
    """Over-provisioning is the largest share over the mean share, less 1."""
    for table, backends in [([0, 0, 0, 1], 2), ([0, 1, 0, 1], 2), ([2, 2, 0, 0, 2, 2], 4)]:
        _expect_measure(case, student, table, backends)
    for scheme in ("modulo", "ring", "rendezvous", "maglev"):
        case.step(f"a table of 50 backends by {scheme}")
        names = [f"{case.random.random()}" for _ in range(50)]
        _expect_measure(case, student, TABLES[scheme](names, 1021, None), 50)


@criterion(step=5, seconds=8, hint="look at each slot once and count, rather than at all slots once for each backend")
def measured_in_time(student: Any, case: Case) -> None:
    """Over-provisioning of 1,000 backends is measured in 655,373 slots within 8 s."""
    table = np.arange(655373) % 1000
    got = case.call(student.over_provisioning, table, 1000)
    _expect_near(case, got, 656 / 655.373 - 1, "the largest share is 656 of 655373 slots")


@criterion(step=6, hint="a slot counts among the others' if its backend before the change has not gone")
def disruption_of_others(student: Any, case: Case) -> None:
    """Disruption counts the slots that changed, with and without those of the backends that went."""
    for before, after, gone in [
        ([1, 0, 1, 0, 2, 2, 0], [0, 0, 0, 0, 2, 2, 2], [1]),
        ([0, 1, 2, 3], [0, 0, 2, 2], [1, 3]),
    ]:
        _expect_disruption(case, student, before, after, gone)
    for scheme in ("modulo", "ring", "maglev"):
        case.step(f"backends 3 and 7 of 20 go, by {scheme}")
        names, weights = [f"{case.random.random()}" for _ in range(20)], np.ones(20)
        before = TABLES[scheme](names, 509, weights)
        weights[[3, 7]] = 0
        _expect_disruption(case, student, before, TABLES[scheme](names, 509, weights), [3, 7])


# What is expected, in the plainest way


def _list(offset: int, skip: int, size: int) -> list[int]:
    return [(offset + j * skip) % size for j in range(size)]


def _expect_turns(case: Case, populate: Any, offsets: Sequence[int], skips: Sequence[int], size: int) -> None:
    """Follows the turns one by one; the first that went wrong is told."""
    table = _numbers(case, case.call(populate, list(offsets), list(skips), size))
    case.expect(len(table), size, "the number of slots")
    lists = [_list(offset, skip, size) for offset, skip in zip(offsets, skips, strict=True)]
    free = set(range(size))
    for turn in range(size):
        backend = turn % len(lists)
        slot = next(slot for slot in lists[backend] if slot in free)
        free.remove(slot)
        if table[slot] != backend:
            wishes = " ".join(map(str, lists[backend][:12])) + (" …" if size > 12 else "")
            case.step(f"turn {turn + 1} is B{backend}'s, whose list is {wishes}; its first free slot is {slot}")
            case.wrong(f"expected B{backend} in slot {slot}, got {_named(table[slot])}")


def _named(backend: int) -> str:
    return f"B{backend}" if backend >= 0 else f"{backend}, which is nobody"


def _expect_measure(case: Case, student: Any, table: Any, backends: int) -> None:
    slots = [list(table).count(backend) for backend in range(backends)]
    expected = max(slots) / (len(table) / backends) - 1
    got = case.call(student.over_provisioning, table, backends)
    _expect_near(case, got, expected, f"the largest share is {max(slots)} of {len(table)} slots")


def _expect_disruption(case: Case, student: Any, before: Any, after: Any, gone: list[int]) -> None:
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    others = [old for old in changed if old not in gone]
    of_all, of_others = case.call(student.disruption, before, after, gone)
    for got, number, which in ((of_all, len(changed), "all"), (of_others, len(others), "others'")):
        _expect_near(case, got, number / len(before), f"{number} of {which} slots have changed, of {len(before)}")


def _expect_near(case: Case, got: Any, expected: float, why: str) -> None:
    case.expect_that(isinstance(got, int | float), f"{why}: expected {expected:.4f}, got {got!r}, which is no number")
    case.expect_that(abs(got - expected) < 1e-9, f"{why}: expected {expected:.4f}, got {got:.4f}")


def _names_twice(case: Case) -> tuple[list[str], list[str]]:
    """Returns seven backends' names, and the same in another order."""
    names = [f"10.2.{number}.2" for number in range(1, 8)]
    return names, case.random.sample(names, len(names))


def _expect_alike(
    case: Case, names: Sequence[str], table: Sequence[int], shuffled: Sequence[str], other_table: Sequence[int]
) -> None:
    for slot, (one, other) in enumerate(zip(table, other_table, strict=True)):
        if names[one] != shuffled[other]:
            case.wrong(f"one Maglev gives slot {slot} to {names[one]}, the other to {shuffled[other]}")


def _wishes(case: Case, size: int) -> tuple[int, int, int]:
    """Returns an offset, a skip and the table size."""
    return case.random.randrange(size), case.random.randrange(1, size), size


def _numbers(case: Case, returned: Any) -> list[int]:
    """Returns what a function returned as a list of whole numbers."""
    case.expect_that(returned is not None, "expected a list of numbers, got None: is there a return?")
    return [int(number) for number in returned]
