"""Faults by schedule, and at random: the part of `Lab` that does more than one thing. With it `Faults` is whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from maglev.config import Config
from maglev.flow import TCP, Flow, pack_address

from ..errors import WrongUse
from ..verdict import Verdict
from .chaos import Wiring, plan
from .on_controllers import ControllerFaults
from .schedule import Entry, Schedule

if TYPE_CHECKING:
    from ..connections import Connection
    from ..laboratory import Lab


class Faults(ControllerFaults):
    """All that `Lab` can do to a data centre."""

    def schedule(self, plan: Iterable[Entry | Sequence[Any]]) -> Schedule:
        """Begins a schedule: entries (when, what, for how long), such as `(2, lambda lab: lab.kill("m1"), 3)`."""
        return self._begin(Schedule(cast("Lab", self), plan))

    def chaos(self, faults: int = 30, seconds: float = 300.0, seed: int = 1) -> Schedule:
        """Begins `faults` random faults over `seconds`; the same seed does the same to the same topology.

        At any time a Maglev and half of the endpoints are left alone. The plan is in the timeline, as a note.
        """
        if away := next((node for node in self.net.hosts if not node.is_here), None):
            raise WrongUse(
                f"{away.name} is on {away.server}: chaos, which freezes and cuts, is for labs on one machine"
            )
        planned = plan(self._wiring(), faults, seconds, seed)
        self.timeline.happened(
            "note", "chaos", "", faults=faults, seconds=seconds, seed=seed, plan=list(map(str, planned))
        )
        return self._begin(Schedule(cast("Lab", self), [each.entry() for each in planned], "chaos"))

    def explain(
        self,
        connections: Iterable[Connection],
        vip: str = "echo",
        as_if: Config | None = None,
    ) -> Verdict:
        """Judges by theory, from this lab's timeline, that every connection that broke had to, and names each reason.

        `as_if` is the configuration by which theory judges, if not the lab's own: one with a connection table, say.
        """
        from . import theory  # it brings in the lookup tables, and so Numba

        endpoints = {node.name: list(node.addresses.values()) for node in self._of_role("endpoint")}
        world = theory.World(as_if or self.config, vip, endpoints, self.maglevs)
        (served,) = [each for each in self.config.vips if each.name == vip]
        clients = {node.name: node.addresses[served.address.version] for node in self._of_role("client")}

        def life(seen: Connection) -> theory.Life:
            ends = (pack_address(clients[seen.client]), pack_address(served.address))
            flow = Flow(*ends, TCP, seen.port, served.port) if seen.port else None
            times_s = self.timeline.at_s(seen.opened_at), self.timeline.at_s(seen.answered_at)
            return theory.Life(seen.name, seen.client, seen.endpoint, seen.fate, *times_s, flow)

        return theory.only_who_had_to([life(seen) for seen in connections], world, theory.spells(self.timeline))

    def _wiring(self) -> Wiring:
        links = [link for link in self._links() if link.near.node.role == "router"]
        return Wiring(
            tuple(self.maglevs),
            tuple(self.endpoints),
            tuple((link.near.node.name, link.far.node.name) for link in links),
        )

    def _begin(self, schedule: Schedule) -> Schedule:
        self._repeat(schedule.repeating)
        return schedule
