"""Moving VIPs between shards: the part of `Lab` that takes a step, waits until it is in force, and takes the next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import maglev.config
from maglev.draining import Silence
from maglev.errors import MaglevError
from maglev.moving import next_step

from . import observe
from .errors import WrongUse
from .faults.on_nodes import CONVERGE_TIMEOUT_S, DRAIN_QUIET_S
from .timeline import Timeline
from .waiting import wait_until


class Moves:
    """How `Lab` moves VIPs."""

    timeline: Timeline
    document: dict[str, Any]
    config: maglev.config.Config

    def move_vip(self, vip: str, to: str) -> list[str]:
        """Moves a VIP, with all others of its address, to another shard; returns what was done, step by step.

        Make before break: no connection is broken and no packet lost, whatever happens to come. Before each step the
        one before it is in force at every Maglev and router (`maglev.moving`). WrongUse for a VIP or shard that there
        is not, or a shard none of whose Maglevs serves now.
        """
        return list(self._moving(vip, to))

    def _moving(self, vip: str, to: str) -> Iterator[str]:
        while True:
            self._check_in_service(to)
            try:
                step = next_step(self.document, self.config, vip, to)
            except MaglevError as error:
                raise WrongUse(str(error)) from None
            if step is None:
                return
            self.document = step.document
            self.reload()
            self.timeline.happened("configuration", step.what, vip)
            self.wait_converged()
            wait_until(self._strange_allies, CONVERGE_TIMEOUT_S, step.what)
            self._wait_unused(vip, step.what)
            yield step.what

    def _check_in_service(self, shard: str) -> None:
        if not self._serving(shard):
            there = sorted({each.shard for each in self.config.maglevs if self._serving(each.shard)})
            raise WrongUse(f"no Maglev serves a shard {shard!r} now; there are {', '.join(there) or 'none'}")

    def _serving(self, *shards: str) -> list[Any]:
        """Returns the Maglevs of shards that are in service."""
        names = {machine.name for machine in self.config.maglevs if machine.shard in shards}
        return [self.node(name) for name in self.maglevs if name in names and self.state_of(name) == "up"]

    def _strange_allies(self) -> str:
        """Says which Maglev does not know yet that one of another shard lives: it could send it no fragments."""
        for node in self._serving(*{machine.shard for machine in self.config.maglevs}):
            view = observe.maglev_view(node.control)
            if view is None:
                return f"{node.name} does not answer"
            for shard, living in view.status["allies"].items():
                expected = [each for each in self._serving(shard) if each.address not in living]
                if expected:
                    return f"{node.name} does not find {expected[0].name} alive yet"
        return ""

    def _wait_unused(self, vip: str, what: str) -> None:
        """Waits until nothing more comes to Maglevs that serve a VIP's address and do not announce it."""
        moved = next(each for each in self.config.vips if each.name == vip)
        names = self.config.sharing_addresses_with(vip)
        nodes = self._serving(*moved.also_served_by)
        if not nodes:
            return

        def packets() -> int:
            views = filter(None, (observe.maglev_view(node.control) for node in nodes))
            rows = (row for view in views for row in view.statistics["vips"])
            return sum(row["packets"] for row in rows if row["vip"] in names)

        silence = Silence(packets(), time.monotonic())
        still = f"packets for {moved.shown} still come to {', '.join(node.name for node in nodes)}"
        wait_until(
            lambda: "" if silence.lasts_s(packets(), time.monotonic()) >= DRAIN_QUIET_S else still,
            CONVERGE_TIMEOUT_S,
            what,
        )
