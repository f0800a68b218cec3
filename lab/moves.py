"""Moving VIPs between shards: the part of `Lab` that takes a step, waits until it is in force, and takes the next."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import maglev.config
from maglev.draining import Silence
from maglev.errors import MaglevError
from maglev.moving import next_step
from maglev.swap import VARIABLE as STUDENT

from . import observe
from .errors import LabError, WrongUse
from .faults.on_nodes import CONVERGE_TIMEOUT_S, DRAIN_QUIET_S
from .nodes import CONFIG, ROOT, project_python
from .site import Site
from .timeline import Timeline
from .waiting import wait_until


class Moves:
    """How `Lab` moves VIPs."""

    timeline: Timeline
    document: dict[str, Any]
    config: maglev.config.Config
    site: Site
    directory: Path

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
            step = self._next_step(vip, to)
            if step is None:
                return
            what, self.document = step
            self.reload()
            self.timeline.happened("configuration", what, vip)
            self.wait_converged()
            wait_until(self._strange_allies, CONVERGE_TIMEOUT_S, what)
            self._wait_unused(vip, what)
            yield what

    def _next_step(self, vip: str, to: str) -> tuple[str, dict[str, Any]] | None:
        """Returns what the next step does, and its configuration; None if there is none left."""
        if STUDENT in self.site.variables:
            return self._step_asked_for(vip, to)
        try:
            step = next_step(self.document, self.config, vip, to)
        except MaglevError as error:
            raise WrongUse(str(error)) from None
        return None if step is None else (step.what, step.document)

    def _step_asked_for(self, vip: str, to: str) -> tuple[str, dict[str, Any]] | None:
        """The same, from the command: in a process of its own, in which a student's code stands for ours."""
        command = [project_python(), "-m", "maglev", "move-vip", "--config", str(self.directory / CONFIG), vip, to]
        try:
            asked = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd=ROOT, env=self.site.environment,
                timeout=CONVERGE_TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise LabError(
                "the next step of a move was not found in time: is there a loop that does not end?"
            ) from None
        said = asked.stderr.strip().rpartition("\n")[2]
        if asked.returncode != 0:
            raise LabError(said)
        return (said.partition(";")[0], yaml.safe_load(asked.stdout)) if asked.stdout else None

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
