"""Measures in a lab: connections are held through a VIP, something happens, and they are counted again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from maglev import persistence
from maglev.persistence import Counts

from ..connections import Connection
from ..errors import LabError
from ..laboratory import Lab
from .events import CAPACITY, CONNECTIONS, EVENTS, FLOOD, FLOOD_PPS, FLOOD_S, MAGLEVS, Event, Protection, options
from .rows import Row, row_of
from .theory import predicted

ANSWERED = 2  # messages on each connection before anything happens: its Maglev has seen it
MOST_FLOODS = 5  # until the tables are full: a busy machine may send less than it should


def rows(
    protections: Iterable[Protection],
    count: int = CONNECTIONS,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Yields a row for each event under each protection, which gets a lab of its own."""
    for protection in protections:
        with Lab(**options(protection)) as lab:
            for event in EVENTS.values():
                progress(f"{protection}: {event.name}")
                theory = predicted(protection, event, FLOOD, round(count / MAGLEVS))
                yield row_of(protection, event, measured(lab, event, count), theory)


def measured(lab: Lab, event: Event, count: int = CONNECTIONS) -> Counts:
    """Has an event happen to `count` connections, and returns what became of them; the lab is then as before."""
    before, after = watched(lab, event, count)
    return Counts(*persistence.counted(before, after, event.dead))


def watched(lab: Lab, event: Event, count: int) -> tuple[list[Connection], list[Connection]]:
    """Returns the connections before and after an event."""
    with contextlib.ExitStack() as undo:
        if event.flood:
            fill_tables(lab)
        undo.callback(lab.restore)
        held = undo.enter_context(lab.connections(count))
        held.wait_answered(ANSWERED, 30.0)
        before = held.all()
        for change in event.changes:
            getattr(lab, change.what)(change.whom)
            lab.wait_converged()
        held.wait_settled()
        return before, held.all()


def fill_tables(lab: Lab) -> None:
    """Floods a VIP until no Maglev has room for another flow; LabError if that cannot be done."""
    for seed in range(MOST_FLOODS):
        lab.traffic.syn_flood("www", rate_pps=FLOOD_PPS, seconds=FLOOD_S, seed=seed).wait()
        views = [view for view in lab.snapshot().maglevs.values() if view is not None]
        entries = [view.statistics["connections"]["entries"] for view in views]
        if not lab.config.forwarder.connection_table.enabled or min(entries, default=0) >= CAPACITY:
            return
    raise LabError(f"{MOST_FLOODS} floods have not filled all connection tables: they have {entries} entries")
