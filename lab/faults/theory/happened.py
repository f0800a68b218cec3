"""What happened: the faults of a timeline, each from when to when, and what the kinds of fault do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf

from ...timeline import Event

HOLD_S = 4.0  # until a router knows of a Maglev that fell silent: BGP's hold time of 3 s, and what comes on top
FROZEN_S = 1.2  # until it knows of a forwarder that does not answer
SETTLE_S = 4.0  # until all know again what all know, after a node or a link has come back

DEADLY = ("kill", "power off", "crash loop", "flap", "restart")  # to what runs on a node
SILENT = {"power off": HOLD_S, "one way": HOLD_S, "impair": HOLD_S, "freeze": FROZEN_S}  # nobody is told: for how long
BLINDING = ("link down", "one way", "impair", "flap")  # a Maglev that comes back from it must find its endpoints first
STEADY = ("kill", "power off", "freeze", "drain", "link down", "one way")  # as it begins, so it goes on to its end
HARMLESS = ("misconfigure", "slow checks", "push", "spray fragments")


@dataclass(frozen=True)
class Spell:
    """A fault, from when to when; seconds on the timeline's clock."""

    what: str
    where: str
    begin_s: float
    end_s: float = inf
    daemons: tuple[str, ...] = ()  # those that a kill or a freeze was about; none: all
    is_noticed: bool = True  # whether anybody but the link itself has to notice it

    @property
    def ends(self) -> frozenset[str]:
        """Returns the nodes that it is about: one, or the two ends of a link."""
        return frozenset(self.where.split("-"))

    def hits(self, daemon: str) -> bool:
        """Says whether it is about this daemon of a node."""
        return not self.daemons or daemon in self.daemons

    def words(self) -> str:
        """Returns it as a person says it."""
        lasting = "" if self.end_s == inf else f" to {self.end_s:.1f} s"
        return f"{self.what} {self.where} ({self.begin_s:.1f} s{lasting})"


def spells(events: Iterable[Event]) -> list[Spell]:
    """Returns the faults of a timeline, in the order in which they began; an undone one ends the newest of its kind."""
    found: list[Spell] = []
    for event in events:
        if event.kind == "fault":
            daemons = tuple(event.detail.get("daemons", ()))
            noticed = event.detail.get("may_be_noticed", True)
            begin_s = event.at_s - event.detail.get("took_s", 0.0)
            found.append(Spell(event.what, event.where, begin_s, inf, daemons, noticed))
        elif event.kind == "undone":
            for place in reversed(range(len(found))):
                each = found[place]
                if (each.what, each.where, each.end_s) == (event.what, event.where, inf):
                    found[place] = replace(each, end_s=event.at_s)
                    break
    return found
