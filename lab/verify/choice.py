"""How Maglevs choose: all alike, and disrupted no more than theory says when endpoints change (Maglev §5.3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maglev.hashing import TABLE_SIZE, lookup_table

from ..verdict import Verdict
from .fates import shown
from .statistics import SIGNIFICANCE, most_likely

if TYPE_CHECKING:
    from maglev.config import Config

    from ..connections import Connection
    from ..observe import Snapshot

Weights = Mapping[str, float]  # by the endpoint's address as text


def maglevs_choose_alike(snapshot: Snapshot) -> Verdict:
    """All Maglevs that answer have one lookup table a pool; a snapshot with whole tables shows where they differ."""
    digests: dict[str, dict[str, list[str]]] = {}  # pool: digest: Maglevs
    for name, view in snapshot.maglevs.items():
        for pool, state in view.status["pools"].items() if view else ():
            if state["table_digest"] is not None:
                digests.setdefault(pool, {}).setdefault(state["table_digest"], []).append(name)
    differing = {pool: tables for pool, tables in digests.items() if len(tables) > 1}
    lines = [
        f"{pool}: {', '.join(names)} have table {digest}"
        for pool, tables in differing.items()
        for digest, names in tables.items()
    ]
    answering = sum(view is not None for view in snapshot.maglevs.values())
    return Verdict(
        "all Maglevs choose alike",
        bool(digests) and not differing,
        "one lookup table a pool, the same on every Maglev that answers",
        f"{len(digests)} pools, {len(differing)} of them with several tables; {answering} Maglevs answer",
        (*shown(lines), *(line for pool in differing for line in _differences(snapshot, pool))),
        "which endpoints each Maglev finds healthy (GET /status, GET /health), and its configuration (GET /config)",
    )


def _differences(snapshot: Snapshot, pool: str) -> tuple[str, ...]:
    """Returns the slots in which tables differ, if the snapshot has whole tables."""
    tables = {name: view.tables[pool] for name, view in snapshot.maglevs.items() if view and pool in view.tables}
    columns = list(zip(*tables.values(), strict=False))
    different = [slot for slot, backends in enumerate(columns) if len(set(backends)) > 1]
    lines = [
        f"{pool}, slot {slot}: "
        + ", ".join(
            f"{name} {snapshot.names.get(backend or '', backend)}"
            for name, backend in zip(tables, columns[slot], strict=True)
        )
        for slot in different
    ]
    return (f"{pool}: {len(different)} of {len(columns)} slots differ", *shown(lines)) if columns else ()


@dataclass(frozen=True)
class Change:
    """What Maglev hashing does to a lookup table when its backends change: counted, not estimated."""

    table_size: int
    staying: int  # slots whose backend is there before and after
    moved: int  # of these, the slots that change all the same

    @property
    def share(self) -> float:
        """Returns how probable it is that a flow of a backend that stays moves nevertheless."""
        return self.moved / self.staying if self.staying else 0.0


def change(before: Weights, after: Weights, table_size: int = TABLE_SIZE) -> Change:
    """Returns what a change of backends does to Maglev's lookup table, from both tables as they are built."""
    import numpy as np

    names = sorted({*before, *after})
    old, new = (
        lookup_table(names, table_size, [weights.get(name, 0.0) for name in names]) for weights in (before, after)
    )
    stays = np.array([*(after.get(name, 0.0) > 0 for name in names), False])[old]  # -1, nobody, is the last
    return Change(table_size, int(stays.sum()), int((stays & (old != new)).sum()))


def weights_of(config: Config, pool: str, without: Collection[str] = ()) -> dict[str, float]:
    """Returns a pool's endpoints by address with their weights, but for those `without`, which are down."""
    members = config.pool_members(pool)
    return {str(member.address): member.weight for member in members if str(member.address) not in without}


def disruption_within_theory(
    before: Sequence[Connection],
    after: Sequence[Connection],
    theory: Change,
    leaving: Collection[str] = (),
    significance: float = SIGNIFICANCE,
) -> Verdict:
    """No more connections of endpoints that stayed broke than Maglev hashing moves, within a binomial bound.

    `leaving` are the endpoints that went, whose connections are not counted. Flows fall into slots independently, so
    the number of those that move is binomial, with `theory.share` for each. That is for a lab whose Maglevs remember
    nothing; with connection tables no more than that can break either.
    """
    lived = {c.name: c for c in before if c.fate == "alive" and c.endpoint not in leaving}
    broken = [c for c in after if c.name in lived and c.is_broken]
    bound = most_likely(len(lived), theory.share, significance)
    return Verdict(
        "a change of endpoints disrupts no more than theory says",
        bool(lived) and len(broken) <= bound,
        f"at most {bound} of {len(lived)}: {theory.moved} of the {theory.staying} slots whose endpoint stays change "
        f"({theory.share:.2%}), and chance goes further than that less than once in {1 / significance:,.0f} times",
        f"{len(broken)} broke",
        shown([f"{c.name}: {c.fate} after {c.messages} messages with {c.endpoint}" for c in broken]),
        "how the Maglevs hash (`hash` in GET /status), and their lookup tables before and after",
    )
