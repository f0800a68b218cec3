"""What became of connections: who broke, and who had to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ..verdict import Verdict

if TYPE_CHECKING:
    from ..connections import Connection

MOST_SHOWN = 20  # lines of evidence; a line more says how many there are besides
LOOK_AT = {
    "reset": "an endpoint that did not know the connection: do all Maglevs choose alike (maglevs_choose_alike), and do "
    "they remember (status and statistics of each)? maglab trace follows a packet of the same ports",
    "stalled": "packets that vanish: the routers' next hops (routes.txt), and drops by reason (GET /statistics)",
    "refused": "connections that never opened: health of the endpoints (GET /health), and drops by reason",
    "garbled": "an answer that was another's: captures of the client and of the endpoints",
}


def connections_persist(connections: Sequence[Connection]) -> Verdict:
    """No connection has broken, and there are some."""
    broken = [connection for connection in connections if connection.is_broken]
    return Verdict(
        "connections persist",
        bool(connections) and not broken,
        "no connection breaks" if connections else "connections to judge",
        f"{len(broken)} of {len(connections)} broke{_fates(broken)}",
        shown([_line(connection) for connection in broken]),
        _look_at(broken),
    )


def only_the_doomed_died(
    connections: Sequence[Connection],
    doomed: Collection[str],
    before: Sequence[Connection] = (),
    all_of_them: bool = True,
) -> Verdict:
    """Nobody broke but those that had to, and all of these did.

    `doomed` names connections (`c1/7`), or endpoints, which take all of theirs with them. With `before`, only the fate
    of those counts that lived then. Without `all_of_them`, who was doomed may have lived.
    """
    lived = {connection.name for connection in before if connection.fate == "alive"}
    judged = [connection for connection in connections if not before or connection.name in lived]
    innocent = [c for c in judged if c.is_broken and not {c.name, c.endpoint} & set(doomed)]
    immortal = [c for c in judged if all_of_them and not c.is_broken and {c.name, c.endpoint} & set(doomed)]
    extent, whose = "exactly" if all_of_them else "at most", ", ".join(_few(doomed)) or "nobody"
    had_to = sum(bool({c.name, c.endpoint} & set(doomed)) for c in judged)
    return Verdict(
        "only connections that had to die died",
        bool(judged) and not innocent and not immortal,
        f"{extent} {had_to} of {len(judged)} connections break, those of {whose}"
        if judged
        else "connections that lived before",
        f"{len(innocent)} broke that should have lived{_fates(innocent)}; {len(immortal)} lived that had to die",
        shown([*map(_line, innocent), *(f"{_line(connection)}, though it had to die" for connection in immortal)]),
        _look_at(innocent) or "whether the fault did what it says: the timeline, and logs of the node it was done to",
    )


def shown(lines: Sequence[str]) -> tuple[str, ...]:
    """Returns as many lines as a person reads, and how many more there are."""
    more = [f"and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    return (*lines[:MOST_SHOWN], *more)


def _few(names: Collection[str]) -> list[str]:
    return list(shown(sorted(names)))


def _line(connection: Connection) -> str:
    return (
        f"{connection.name}: {connection.fate} after {connection.messages} messages with {connection.endpoint or '?'}"
    )


def _fates(connections: Sequence[Connection]) -> str:
    counts = Counter(connection.fate for connection in connections)
    return f" ({', '.join(f'{count} {fate}' for fate, count in counts.most_common())})" if counts else ""


def _look_at(broken: Sequence[Connection]) -> str:
    return "; ".join(LOOK_AT[fate] for fate, _ in Counter(c.fate for c in broken).most_common() if fate in LOOK_AT)
