"""Judges ECMP (Maglev §2.1, RFC 2992): by counting points and buckets one by one, and by this machine's own kernel."""

from __future__ import annotations

import math
import subprocess
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from lab.classroom import Case, criterion, elsewhere
from lab.classroom.wire import ENDPOINT as INTERFACE
from lab.classroom.wire import joined
from maglev.flow import TCP, UDP, Flow, pack_address

REFERENCE = "maglev.ecmp"
LIVE = {"topology": "resilient", "maglevs": 4, "endpoints": 4, "ecmp": "threshold"}

VIP = "192.0.2.1"
HOPS = [f"m{number}" for number in range(1, 9)]
POINTS = 27_720  # a multiple of every number from 1 to 12: no interval's edge lies between two of so many points
FLOWS = 600  # that the kernel is asked for
BUCKETS = 128


@criterion(step=1, hint="layer 3 sees no ports and no protocol; in layer 4 each field has bytes of its own")
def what_is_hashed(student: Any, case: Case) -> None:
    """By layer 3 flows between the same addresses are one, by layer 4 every field of the 5-tuple counts."""
    flow = _flow(case.random.randrange(1024, 60000))
    others = {
        "source": pack_address("10.0.2.2"), "destination": pack_address("192.0.2.2"), "protocol": UDP,
        "source_port": flow.source_port + 1, "destination_port": 7,
    }  # fmt: skip
    for layer, counting in ((3, {"source", "destination"}), (4, set(others))):
        key = case.call(student.hash_key, flow, layer)
        case.expect(student.hash_key(flow, layer), key, "the same key for the same flow")
        found = {name for name, value in others.items() if student.hash_key(_with(flow, name, value), layer) != key}
        case.expect(sorted(found), sorted(counting), f"the fields that count in layer {layer}")
    case.step("source port 1 and destination port 23, against 12 and 3")
    one, other = (flow._replace(source_port=a, destination_port=b) for a, b in ((1, 23), (12, 3)))
    case.expect(student.hash_key(one) != student.hash_key(other), True, "whether these two differ in layer 4")
    case.expect_error(ValueError, student.hash_key, flow, 5)


@criterion(step=2, hint="an n-bit hash, over 2^n; are all of its bits any good, if ports go up one by one?")
def points_are_even(student: Any, case: Case) -> None:
    """Points lie in [0, 1), as evenly as dice would throw them, though ports go up one by one."""
    first = case.random.randrange(1024, 50000)
    case.step(f"10,000 flows of one client, from port {first} up")
    points = [student.point(_flow(first + number)) for number in range(10_000)]
    case.expect_that(all(0 <= each < 1 for each in points), f"expected points in [0, 1), got {min(points)} and others")
    counts = Counter(int(each * 10) for each in points)
    for tenth in range(10):
        far = abs(counts[tenth] - 1000)
        case.expect_that(far < 150, f"expected some 1,000 points in [0.{tenth}, 0.{tenth} + 0.1), got {counts[tenth]}")
    case.step("the same flows by layer 3")
    alone = {student.point(_flow(first + number), 3) for number in range(100)}
    case.expect(len(alone), 1, "how many points flows between two addresses have by layer 3")


@criterion(step=2, hint="Python's own hash() is another in every process; blake2b, or zlib.crc32, is not")
def points_are_the_same_everywhere(student: Any, case: Case) -> None:
    """A flow has the same point in every process: a router that starts again must not move what it does not have to."""
    flow, seed = _flow(case.random.randrange(1024, 60000)), case.random.randrange(1 << 64)
    here = student.point(flow, 4, seed)
    for _ in range(2):
        case.step(f"asked another Python process for the point of {flow}, seed {seed}")
        (there,) = map(str, elsewhere.numbers(case, student, "point", flow, 4, seed))
        case.expect(there, str(Fraction(here)), "the same point")


@criterion(step=2, hint="the seed has to go into the hash, not onto it: what do two routers in a row do else?")
def another_seed_is_another_hash(student: Any, case: Case) -> None:
    """Of the flows that one router sends the first way, a second one with another seed sends half the first way."""
    seeds = case.random.sample(range(1000), 2)
    flows = [_flow(1024 + number) for number in range(8000)]
    low = [flow for flow in flows if student.point(flow, 4, seeds[0]) < Fraction(1, 2)]
    case.step(f"a router with seed {seeds[0]} sends {len(low):,} of 8,000 flows the first of two ways")
    both = sum(student.point(flow, 4, seeds[1]) < Fraction(1, 2) for flow in low)
    case.step(f"the next one has seed {seeds[1]}")
    near = abs(both - len(low) / 2) < 5 * math.sqrt(len(low)) / 2
    case.expect_that(near, f"expected some {len(low) // 2:,} of them the first way again, got {both:,}")


@criterion(step=3, hint="how many intervals lie below the point?")
def intervals_in_order(student: Any, case: Case) -> None:
    """Each next hop has an equal interval, in order, which begins with its lower edge."""
    for number in range(1, 8):
        hops = case.random.sample(HOPS, number)
        for index, hop in enumerate(hops):
            for inside in (Fraction(0), Fraction(1, 2), Fraction(999, 1000)):
                where = Fraction(index + inside) / number
                got = case.call(student.threshold, where, hops)
                case.expect(got, hop, f"the next hop at {float(where):.4f}")
        case.expect(student.threshold(0.999999, hops), hops[-1], "the last next hop, short of 1")


@criterion(step=4, hint="draw both rows of intervals one above the other; between two edges nothing changes")
def what_the_threshold_moves(student: Any, case: Case) -> None:
    """What another set of next hops moves by hash threshold is exact, whoever leaves or joins, wherever he stands."""
    for before, after, share in [("abc", "abc", 0), ("abc", "bc", Fraction(1, 2)), ("abc", "ac", Fraction(1, 3)),
                                 ("abcd", "bcd", Fraction(1, 2)), ("abcd", "abcde", Fraction(1, 2)),
                                 ("a", "b", 1), ("abcde", "abcd", Fraction(1, 2))]:  # fmt: skip
        got = case.call(student.threshold_moves, list(before), list(after))
        case.expect(got, share, "the share of flows that move")
    for _ in range(6):
        before, after = _hops(case), _hops(case)
        got = case.call(student.threshold_moves, before, after)
        case.expect(got, _counted(before, after), f"what moves of {POINTS:,} points")


@criterion(step=5, hint="128 buckets over 3 next hops are 43, 43 and 42: whom do you give the rest to?")
def new_tables_are_even(student: Any, case: Case) -> None:
    """A new table gives each next hop equally many buckets, or one more than another."""
    for hops, buckets in [(HOPS[:3], 128), (HOPS[:1], 7), (_hops(case), 100), (_hops(case), 8)]:
        table = list(case.call(student.resilient_table, hops, buckets))
        case.expect(len(table), buckets, "the number of buckets")
        _expect_even(case, table, hops)


@criterion(step=5, hint="a bucket moves if its next hop has left, or has more than it should; who has too few gets it")
def tables_change_as_little_as_they_can(student: Any, case: Case) -> None:
    """After each change the table is even again, and no bucket has moved that could have stayed."""
    table = tuple(student.resilient_table(HOPS[:4], 100))
    for hops in [HOPS[1:4], HOPS[:4], HOPS[:3], HOPS[:6], *(_hops(case) for _ in range(6))]:
        case.step(f"the table had {_shares(table)}; now serve {', '.join(hops)}")
        updated = tuple(student.resilient_update(table, hops))
        case.expect(len(updated), len(table), "the number of buckets")
        _expect_even(case, list(updated), hops)
        moved = sum(old != new for old, new in zip(table, updated, strict=True))
        counts = Counter(updated)
        needed = sum(max(0, number - counts[hop]) for hop, number in Counter(table).items())
        case.expect(moved, needed, "the number of buckets that move")
        table = updated


@criterion(step=6, hint="resilient_moves counts what resilient_update changes; expected_moves begins with a new table")
def what_either_router_moves(student: Any, case: Case) -> None:
    """Expected moves are those of the hash threshold, and with buckets those of a resilient table."""
    for _ in range(6):
        before, after = _hops(case), _hops(case)
        case.expect(case.call(student.expected_moves, before, after), _counted(before, after), "by hash threshold")
        stay = [hop for hop in before if hop in after]
        share = 1 - Fraction(len(stay), max(len(before), len(after)))
        got = case.call(student.expected_moves, before, after, 840)  # all numbers of next hops divide 840
        case.expect(got, share, "by a resilient table")
    table = ["m1"] * 6 + ["m2"] * 2
    case.expect(case.call(student.resilient_moves, table, ["m1", "m2"]), Fraction(1, 4), "what an uneven table moves")


@criterion(step=6, seconds=20, hint="ask it by hand: ip route get 192.0.2.1 from … iif … ipproto tcp sport … dport 80")
def the_kernel_agrees(student: Any, case: Case) -> None:
    """This machine's kernel moves as many flows as expected: by its hash threshold, and by its resilient groups."""
    joined(case)
    kernel = Kernel()
    for buckets in (None, BUCKETS):
        case.step(f"the kernel spreads {'by hash threshold' if buckets is None else f'over {buckets} buckets'}")
        for before, after in [(HOPS[:4], HOPS[1:4]), (HOPS[:3], HOPS[:4]), (_hops(case), _hops(case))]:
            case.step(f"of {FLOWS} flows it moves some when {' '.join(before)} becomes {' '.join(after)}")
            moved = kernel.moves(before, after, buckets)
            share = float(student.expected_moves(before, after, buckets))
            near = abs(moved - share * FLOWS) <= 4.5 * math.sqrt(FLOWS * share * (1 - share)) + 1
            case.expect_that(near, f"expected some {share * FLOWS:.0f} flows to move, by your theory; {moved} did")
    for layer, policy in ((3, 0), (4, 1)):
        case.step(f"fib_multipath_hash_policy is {policy}; {FLOWS} flows of one client are spread over four next hops")
        keys = {student.hash_key(flow, layer) for flow in kernel.flows}
        ways = len(set(kernel.ways_by(policy, HOPS[:4])))
        case.expect(ways, min(4, len(keys)), f"next hops, of {len(keys)} different keys in layer {layer}")


# What is expected, in the plainest way


def _flow(port: int) -> Flow:
    return Flow(pack_address("10.0.1.2"), pack_address(VIP), TCP, port, 80)


def _with(flow: Flow, name: str, value: Any) -> Flow:
    return flow._replace(**{name: value})


def _hops(case: Case) -> list[str]:
    """Returns up to eight next hops in order, one at least."""
    return sorted(case.random.sample(HOPS, case.random.choice([1, 2, 3, 4, 5, 6, 7, 8])))


def _counted(before: Sequence[str], after: Sequence[str]) -> Fraction:
    """Returns the share of many points at which the next hop is another."""
    pairs = ((before[n * len(before) // POINTS], after[n * len(after) // POINTS]) for n in range(POINTS))
    return Fraction(sum(old != new for old, new in pairs), POINTS)


def _expect_even(case: Case, table: list[str], hops: Sequence[str]) -> None:
    counts = {hop: table.count(hop) for hop in hops}
    case.expect(sorted(set(table) - set(hops)), [], "buckets of next hops that are not there")
    even = max(counts.values()) - min(counts.values()) <= 1
    case.expect_that(even, f"expected equally many buckets each, or one more, got {_shares(table)}")


def _shares(table: Sequence[str]) -> str:
    return ", ".join(f"{number} {hop}" for hop, number in sorted(Counter(table).items()))


class Kernel:
    """This machine's kernel as a router, in the check's own namespace: it says by which next hop each flow would go."""

    def __init__(self) -> None:
        self.flows = [_flow(20_000 + number) for number in range(FLOWS)]
        for name in ("ip_forward", "fib_multipath_hash_policy"):
            _sysctl(name, 1)
        for number in range(len(HOPS)):
            self._ip(f"nexthop add id {number + 1} via 10.2.1.{number + 101} dev {INTERFACE}")

    def moves(self, before: Sequence[str], after: Sequence[str], buckets: int | None) -> int:
        """Returns how many flows get another next hop."""
        ways = [self._ways(hops, buckets) for hops in (before, after)]
        self._ip(f"route del {VIP}\nnexthop del id 100")
        return sum(old != new for old, new in zip(*ways, strict=True))

    def ways_by(self, policy: int, hops: Sequence[str]) -> list[str]:
        """Returns the next hop of each flow, by Linux's hash policy 0 (layer 3) or 1 (layer 4)."""
        _sysctl("fib_multipath_hash_policy", policy)
        return self._ways(hops, None)

    def _ways(self, hops: Sequence[str], buckets: int | None) -> list[str]:
        members = "/".join(str(HOPS.index(hop) + 1) for hop in hops)
        kind = f" type resilient buckets {buckets} idle_timer 0" if buckets else ""
        self._ip(f"nexthop replace id 100 group {members}{kind}\nroute replace {VIP} nhid 100")
        question = f"route get {VIP} from 10.0.1.2 iif {INTERFACE} ipproto tcp dport 80 sport"
        answers = self._ip("\n".join(f"{question} {flow.source_port}" for flow in self.flows))
        return [words.split()[0] for words in answers.split(" via ")[1:]]

    @staticmethod
    def _ip(lines: str) -> str:
        """Has `ip` carry out some lines; returns what it says."""
        done = subprocess.run(["ip", "-batch", "-"], input=f"{lines}\n", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"ip: {done.stderr.strip()}")
        return done.stdout


def _sysctl(name: str, value: int) -> None:
    Path("/proc/sys/net/ipv4", name).write_text(str(value))
