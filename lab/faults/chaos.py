"""Random faults from a seed: which, where, when and for how long. Pure; the same seed gives the same plan.

Each fault has a stretch of the time to itself to begin in; one in three lasts into the next, so that a change of
endpoints and one of Maglevs meet, which is what breaks connections (Maglev §3.3). At any time at least one Maglev and
half of the endpoints are left alone: chaos is there to see who survives, and nobody survives the end of the world.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import WrongUse
from .schedule import Entry

if TYPE_CHECKING:
    from ..laboratory import Lab

MOST_FAULTS = 1000
BEGINS = (0.05, 0.25)  # in the fault's own stretch, as shares of it
LASTS = (0.4, 0.6)
OVERLAPS = (1.25, 1.5)  # that it lasts when it is to meet the next
OVERLAPPING = 1 / 3
SHORTEST_STRETCH_S = 0.1


@dataclass(frozen=True)
class Wiring:
    """What chaos needs to know of a lab."""

    maglevs: tuple[str, ...]
    endpoints: tuple[str, ...]
    links: tuple[tuple[str, str], ...]  # (router, other end)


@dataclass(frozen=True)
class Planned:
    """One fault to come."""

    at_s: float
    what: str  # the name of a method of `Lab`
    hits: str  # the Maglev or endpoint that it is about; "" if it is about none
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    for_s: float | None = None

    def entry(self) -> Entry:
        """Returns it for a schedule."""

        def act(lab: Lab) -> Any:
            return getattr(lab, self.what)(*self.arguments, **self.options)

        return Entry(self.at_s, act, self.for_s)

    def __str__(self) -> str:
        words = [*map(str, self.arguments), *(f"{name}={value}" for name, value in self.options.items())]
        lasting = f" for {self.for_s:.2f} s" if self.for_s is not None else ""
        return f"{self.at_s:.2f} s: {self.what} {' '.join(words)}{lasting}"


Maker = Callable[[random.Random, str, str], tuple[tuple[Any, ...], dict[str, Any]]]  # random, router, node


def _of_node(random_: random.Random, router: str, node: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (node,), {}


def _of_link(random_: random.Random, router: str, node: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (f"{router}-{node}",), {}


def _dead_towards(random_: random.Random, router: str, node: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (f"{router}-{node}",), {"dead_towards": random_.choice((router, node))}


def _delayed(random_: random.Random, router: str, node: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    delay_ms = random_.randrange(2, 20)
    return (f"{router}-{node}",), {"delay_ms": delay_ms, "jitter_ms": delay_ms // 2, "seed": random_.randrange(1 << 16)}


def _hop(random_: random.Random, router: str, node: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (router, node), {}


@dataclass(frozen=True)
class Kind:
    """A kind of fault: whom it hits, and whether there is something to undo."""

    what: str
    make: Maker
    lasting: bool = True


KINDS = {
    "maglev": (
        Kind("kill", _of_node), Kind("freeze", _of_node), Kind("power_off", _of_node), Kind("drain", _of_node),
        Kind("link_down", _of_link), Kind("one_way", _dead_towards), Kind("impair", _delayed),
        Kind("remove_next_hop", _hop), Kind("restart", _of_node, False), Kind("reset_session", _of_node, False),
        Kind("misconfigure", _of_node, False),
    ),
    "endpoint": (
        Kind("kill", _of_node), Kind("freeze", _of_node), Kind("power_off", _of_node), Kind("drain", _of_node),
        Kind("link_down", _of_link), Kind("impair", _delayed), Kind("restart", _of_node, False),
    ),
}  # fmt: skip


def plan(wiring: Wiring, faults: int, seconds: float, seed: int) -> list[Planned]:
    """Returns the faults to come, in order; WrongUse for numbers, or a lab, that leave no room for them."""
    if not 1 <= faults <= MOST_FAULTS:
        raise WrongUse(f"chaos of {faults} faults is not allowed; allowed: 1 to {MOST_FAULTS}")
    if seconds < faults * SHORTEST_STRETCH_S:
        raise WrongUse(
            f"{faults} faults in {seconds:g} s is not allowed; allowed: at most {1 / SHORTEST_STRETCH_S:g} a second"
        )
    if len(wiring.maglevs) < 2 or len(wiring.endpoints) < 2:
        raise WrongUse("chaos leaves a Maglev and half of the endpoints alone: it needs at least two of each")
    random_ = random.Random(seed)
    stretch_s = seconds / faults
    planned: list[Planned] = []
    for number in range(faults):
        at_s = stretch_s * (number + random_.uniform(*BEGINS))
        overlaps = random_.random() < OVERLAPPING and number < faults - 1
        for_s = stretch_s * random_.uniform(*(OVERLAPS if overlaps else LASTS))
        planned.append(_one(random_, wiring, planned, round(at_s, 3), round(for_s, 3)))
    return planned


def _one(random_: random.Random, wiring: Wiring, before: list[Planned], at_s: float, for_s: float) -> Planned:
    """Returns a fault at a node that is well then, of a role that can spare one."""
    least = {"maglev": 1, "endpoint": len(wiring.endpoints) // 2}
    for rest_s in (for_s / 2, 0.0):  # since a node was hit last: it is to recover, if there are others
        spared = _spared(wiring, before, at_s - rest_s)
        roles = [role for role, names in spared.items() if len(names) > least[role]]
        if roles:
            break
    role = random_.choice(roles)
    node = random_.choice(spared[role])
    kind = random_.choice(KINDS[role])
    router = random_.choice([near for near, far in wiring.links if far == node])
    arguments, options = kind.make(random_, router, node)
    return Planned(at_s, kind.what, node, arguments, options, for_s if kind.lasting else None)


def _spared(wiring: Wiring, before: list[Planned], since_s: float) -> dict[str, list[str]]:
    """Returns the nodes that nothing has hit since then, by role."""
    hit = {each.hits for each in before if each.for_s is not None and each.at_s + each.for_s > since_s}
    names = {"maglev": wiring.maglevs, "endpoint": wiring.endpoints}
    return {role: [name for name in each if name not in hit] for role, each in names.items()}
