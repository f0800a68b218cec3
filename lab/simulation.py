"""What no machine can emulate: millions of connections, hundreds of Maglevs, thousands of endpoints, and their churn.

A simulation knows flows and nothing smaller: where each flow's hash falls at the routers, and in the lookup table; who
serves it; and which Maglevs remember it. All else is as the real parts do it: lookup tables are those of
`maglev.hashing` and `maglev.baselines`, ECMP is `maglev.ecmp`. What is left out: packets, time (every change has
settled before the next, and no entry expires), and views that differ between Maglevs.

Flows are drawn from a seed. A connection that breaks is opened again at once, by the same client.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maglev.baselines import TABLES
from maglev.compiled import compiled
from maglev.ecmp import resilient_table, resilient_update, threshold_moves
from maglev.hashing import TABLE_SIZE, Table
from maglev.primes import is_prime

from .errors import WrongUse

MOST_MAGLEVS = 128  # a flow remembers in two words of 64 bits who has seen it
MOST_ENDPOINTS = 32_767  # int16
MOST_FLOWS = 100_000_000
BUCKETS_A_MAGLEV = 64  # of a resilient group, at least
WHATS = ("kill", "add", "drain")
ECMPS = ("threshold", "resilient")

Points = NDArray[np.uint32]  # of each flow: where its hash falls at the routers, in 2**32
Slots = NDArray[np.uint32]  # of each flow: in the lookup table
Owners = NDArray[np.int16]  # of each flow: the endpoint that serves it
Seen = NDArray[np.uint64]  # (2, flows): a bit for each Maglev whose connection table has the flow


@dataclass(frozen=True)
class Cluster:
    """What is simulated. Raises WrongUse for what cannot be."""

    maglevs: int = 3
    endpoints: int = 5
    flows: int = 100_000
    table_size: int = TABLE_SIZE
    hash: str = "maglev"
    capacity: int | None = None  # entries of each Maglev's connection table; 0: none, None: as many as come
    ecmp: str = "threshold"
    without: tuple[str, ...] = ()  # nodes that are not there when the connections are opened, such as s4
    seed: int = 1

    def __post_init__(self) -> None:
        for name, most in (("maglevs", MOST_MAGLEVS), ("endpoints", MOST_ENDPOINTS), ("flows", MOST_FLOWS)):
            self._require(name, 1 <= getattr(self, name) <= most, f"a whole number from 1 to {most:,}")
        for name, allowed in (("hash", tuple(TABLES)), ("ecmp", ECMPS)):
            self._require(name, getattr(self, name) in allowed, ", ".join(allowed))
        self._require("table_size", is_prime(self.table_size), f"a prime, such as {TABLE_SIZE}")
        self._require("capacity", (self.capacity or 0) >= 0, "0 (no connection table), or so many entries")
        nodes = {f"m{n + 1}" for n in range(self.maglevs)} | {f"s{n + 1}" for n in range(self.endpoints)}
        self._require("without", nodes.issuperset(self.without), f"m1 to m{self.maglevs} and s1 to s{self.endpoints}")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise WrongUse(f"{name}={getattr(self, name)!r} is not allowed; allowed: {allowed}")


@dataclass(frozen=True)
class Change:
    """One change of the cluster: `kill m3`, `add s7`, `drain s7`."""

    what: str
    whom: str

    @staticmethod
    def parse(text: str) -> Change:
        """Reads a change, such as "kill m3"; WrongUse, with what is allowed, for what is none."""
        words = text.split()
        kinds = {"m": ("kill", "add"), "s": WHATS}
        if len(words) == 2 and words[1][1:].isdigit() and words[0] in kinds.get(words[1][0], ()):
            return Change(*words)
        raise WrongUse(f"{text!r} is no change; allowed: kill or add with m1, m2, …, and these or drain with s1, s2, …")

    @property
    def is_maglev(self) -> bool:
        """Says whether a Maglev changes, and not an endpoint."""
        return self.whom.startswith("m")

    @property
    def number(self) -> int:
        """Returns the node's number, from 0."""
        return int(self.whom[1:]) - 1

    def __str__(self) -> str:
        return f"{self.what} {self.whom}"


@dataclass(frozen=True)
class Outcome:
    """What a change, or several at once, did to the flows."""

    changes: str
    moved: int  # came to another Maglev
    broken: int  # that should have lived
    doomed: int  # whose endpoint died
    expected_moved: float  # by theory
    changed_slots: float  # share of the lookup table that changed, but for what left
    unrecorded: int  # flows that no Maglev has room for


@dataclass
class _State:
    """Who is there now."""

    maglevs: list[int]  # in the order of their addresses, as routers list them
    endpoints: list[int]  # alive
    drained: set[int]
    table: Table
    buckets: list[int] = field(default_factory=list)  # of resilient routers


class Simulation:
    """A cluster and its flows, change by change."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        dice = np.random.default_rng(cluster.seed)
        self._points: Points = dice.integers(0, 1 << 32, cluster.flows, np.uint32)
        self._slots: Slots = dice.integers(0, cluster.table_size, cluster.flows, np.uint32)
        self._seen: Seen = np.zeros((2, cluster.flows), np.uint64)
        self._entries = np.zeros(MOST_MAGLEVS, np.int64)
        self._capacity = np.iinfo(np.int64).max if cluster.capacity is None else cluster.capacity
        maglevs, endpoints = (
            [n for n in range(count) if f"{kind}{n + 1}" not in cluster.without]
            for kind, count in (("m", cluster.maglevs), ("s", cluster.endpoints))
        )
        if not maglevs:
            raise WrongUse(f"without {', '.join(cluster.without)} there is no Maglev left")
        self._state = _State(maglevs, endpoints, set(), self._table(endpoints))
        self._state.buckets = self._dealt(None)
        self._owners: Owners = self._state.table[self._slots].astype(np.int16)
        self._at = np.full(cluster.flows, -1, np.int16)
        self._settle(set())

    def apply(self, changes: Sequence[Change]) -> Outcome:
        """Makes changes, all at once, and returns what became of the flows. WrongUse for what cannot be done."""
        before = self._state
        self._state, gone = self._changed(changes)
        moved, broken, doomed = self._settle(gone)
        kept = ~np.isin(before.table, list(gone))
        return Outcome(
            changes=", ".join(map(str, changes)),
            moved=moved,
            broken=broken,
            doomed=doomed,
            expected_moved=self._expected_moves(before) * self.cluster.flows,
            changed_slots=float(((before.table != self._state.table) & kept).mean()),
            unrecorded=int(_unrecorded(self._seen)),
        )

    def _changed(self, changes: Sequence[Change]) -> tuple[_State, set[int]]:
        """Returns the state after changes, and the endpoints that die."""
        maglevs, endpoints, drained = list(self._state.maglevs), list(self._state.endpoints), set(self._state.drained)
        gone = set()
        for change in changes:
            there, number = (maglevs if change.is_maglev else endpoints), change.number
            is_drained = not change.is_maglev and number in drained
            if (number in there) == (change.what == "add") and not (change.what == "add" and is_drained):
                raise WrongUse(f"{change}: {change.whom} is {'there already' if number in there else 'not there'}")
            limit = MOST_MAGLEVS if change.is_maglev else MOST_ENDPOINTS
            if number >= limit:
                raise WrongUse(f"{change}: allowed are numbers from 1 to {limit:,}")
            if not change.is_maglev:
                drained.discard(number)
            if change.what == "drain":
                drained.add(number)
            elif change.what == "kill":
                there.remove(number)
                gone |= set() if change.is_maglev else {number}
            else:
                there[:] = sorted({*there, number})
        if not maglevs:
            raise WrongUse("the last Maglev cannot be killed: there would be nothing to simulate")
        state = _State(maglevs, endpoints, drained, self._table([e for e in endpoints if e not in drained]))
        state.buckets = self._dealt(state.maglevs)
        return state, gone

    def _table(self, endpoints: Sequence[int]) -> Table:
        """Returns the lookup table of these endpoints, by their numbers."""
        names = [f"10.2.{number % 250 + 1}.{number // 250 + 2}" for number in endpoints]  # as the rack's are
        numbers = np.array([*endpoints, -1], np.int32)
        return numbers[TABLES[self.cluster.hash](names, self.cluster.table_size, None)]

    def _dealt(self, maglevs: Sequence[int] | None) -> list[int]:
        """Returns whom each bucket of the routers leads to; with the hash threshold, a bucket for each Maglev."""
        if self.cluster.ecmp == "threshold":
            return list(self._state.maglevs if maglevs is None else maglevs)
        if maglevs is None:
            size = BUCKETS_A_MAGLEV * max(2, len(self._state.maglevs))
            return [int(hop) for hop in resilient_table([str(m) for m in self._state.maglevs], size)]
        before = [str(bucket) for bucket in self._state.buckets]
        return [int(hop) for hop in resilient_update(before, [str(m) for m in maglevs])]

    def _expected_moves(self, before: _State) -> float:
        """Returns the share of flows that another set of Maglevs moves, in theory."""
        old, new = before.buckets, self._state.buckets
        if self.cluster.ecmp == "threshold":
            return float(threshold_moves([str(m) for m in old], [str(m) for m in new]))
        return sum(one != other for one, other in zip(old, new, strict=True)) / len(old)

    def _settle(self, gone: set[int]) -> tuple[int, int, int]:
        """Sends a packet of every flow; returns how many came to another Maglev, broke, and had to die."""
        dead = np.zeros(MOST_ENDPOINTS + 1, np.bool_)
        dead[list(gone)] = True
        buckets = np.array(self._state.buckets, np.int16)
        present = np.zeros(MOST_MAGLEVS, np.bool_)
        present[self._state.maglevs] = True
        self._entries[~present] = 0
        mask = _mask(~present)
        return tuple(
            _pass(
                self._points, self._slots, self._owners, self._at, self._seen, self._state.table, buckets, dead,
                self._entries, self._capacity, mask,
            )
        )  # fmt: skip


def _mask(absent: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Returns the bits of those Maglevs that have not gone, (2,): whoever comes back has forgotten everything."""
    words = np.zeros(2, np.uint64)
    for number in np.flatnonzero(~absent):
        words[number >> 6] |= np.uint64(1) << np.uint64(number & 63)
    return words


@compiled
def _pass(points, slots, owners, at, seen, table, buckets, dead, entries, capacity, mask):  # type: ignore[no-untyped-def]
    """One packet of every flow; see `Simulation._settle`. A dead endpoint's flows are opened again."""
    moved = broken = doomed = 0
    hops = np.uint64(len(buckets))
    for flow in range(len(points)):
        maglev = buckets[(np.uint64(points[flow]) * hops) >> np.uint64(32)]
        if at[flow] != maglev:
            moved += at[flow] >= 0
            at[flow] = maglev
        word, bit = maglev >> 6, np.uint64(1) << np.uint64(maglev & 63)
        known = seen[word, flow] & mask[word]
        owner = owners[flow]
        chosen = owner if known & bit and not dead[owner] else table[slots[flow]]
        if chosen != owner:
            if dead[owner]:
                doomed += 1
            else:
                broken += 1
            owners[flow] = chosen  # opened again, and known to this Maglev alone
            for each in range(2):
                seen[each, flow] &= mask[each]
                for other in range(64):
                    if seen[each, flow] >> np.uint64(other) & np.uint64(1):
                        entries[64 * each + other] -= 1
                seen[each, flow] = 0
            known = np.uint64(0)
        else:
            seen[0, flow] &= mask[0]
            seen[1, flow] &= mask[1]
        if not known & bit and entries[maglev] < capacity:
            seen[word, flow] |= bit
            entries[maglev] += 1
    return moved, broken, doomed


@compiled
def _unrecorded(seen):  # type: ignore[no-untyped-def]
    count = 0
    for flow in range(seen.shape[1]):
        count += seen[0, flow] == 0 and seen[1, flow] == 0
    return count


def churn(cluster: Cluster, events: int) -> Iterator[list[Change]]:
    """Yields so many random changes of a cluster, from its seed: nodes die, and come back; a few at a time are away."""
    dice = np.random.default_rng([cluster.seed, 1])
    away: list[Change] = []
    for _ in range(events):
        if away and (len(away) >= 4 or dice.random() < 0.5):
            back = away.pop(int(dice.integers(len(away))))
            yield [Change("add", back.whom)]
            continue
        maglevs_left = cluster.maglevs - sum(each.is_maglev for each in away)
        is_maglev = maglevs_left > 1 and dice.random() < 0.5
        kind, number = ("m", cluster.maglevs) if is_maglev else ("s", cluster.endpoints)
        candidates = [whom for n in range(1, number + 1) if (whom := f"{kind}{n}") not in {each.whom for each in away}]
        away.append(Change("kill", candidates[int(dice.integers(len(candidates)))]))
        yield [away[-1]]


def run(cluster: Cluster, changes: Iterable[Sequence[Change]]) -> dict[str, Any]:
    """Simulates changes, one after another; returns a document with what each did, and how long it took."""
    began = time.monotonic()
    simulation = Simulation(cluster)
    outcomes = [asdict(simulation.apply(each)) for each in changes]
    totals: Mapping[str, int] = {name: sum(each[name] for each in outcomes) for name in ("moved", "broken", "doomed")}
    return {
        "cluster": asdict(cluster),
        "outcomes": outcomes,
        **totals,
        "broken_share": totals["broken"] / cluster.flows,
        "seconds": round(time.monotonic() - began, 3),
    }
