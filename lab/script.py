"""Scripts: something done to a lab, and what must have come of it.

A script is a Python file with a docstring and a function:

    def scenario(run, connections=300):
        with run.lab("rack", maglevs=3) as lab, lab.connections(connections) as held:
            with lab.kill("m1"):
                lab.wait_converged()
            run.expect(verify.connections_persist(held.all()))

Whatever else the function takes, `maglab run` takes as an option. `lab/scenarios/` has a dozen; each says in
`PROTECTION` what saves it, and fails when that is switched off.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .catalogue import KINDS
from .errors import CannotStart, LabError, NotInTime, WrongUse
from .faults import Fault
from .laboratory import Lab
from .own_files import load_own
from .verdict import Verdict

REPORT_INTERVAL_S = 0.5  # between samples
SCENARIOS = Path(__file__).parent / "scenarios"
# What a lab can do without, to show what it is for: and what happens in its place.
PROTECTIONS = {
    "connection-table": "Maglevs forget which endpoint a flow has",
    "maglev-hashing": "flows are spread by modulo",
    "health-checks": "every endpoint counts as healthy",
    "vip-checks": "health checks do not go the way of the clients' packets",
    "drain": "whoever leaves is killed",
    "limits": "new flows are not limited",
    "fragment-owners": "every Maglev keeps the fragments that it gets",
    "resilient-next-hops": "routers spread over next hops by their plain hash",
}


class Run:
    """One run of a script: what it is given, and the verdicts that it comes to."""

    def __init__(
        self,
        seed: int,
        without: Collection[str] = (),
        say: Callable[[str], None] = print,
        meet: Callable[[Verdict], None] = lambda verdict: None,
        reports: Path | None = None,
    ) -> None:
        """`say` is told what is being done, `meet` each verdict, at once; `reports` is where pages of labs go.

        WrongUse for an unknown protection.
        """
        if unknown := sorted(set(without) - set(PROTECTIONS)):
            raise WrongUse(f"{unknown[0]!r} cannot be done without; allowed: {', '.join(PROTECTIONS)}")
        self.seed = seed
        self.random = random.Random(seed)
        self.without = frozenset(without)
        self.verdicts: list[Verdict] = []
        self.say, self._meet, self._reports = say, meet, reports
        self._running: list[Lab] = []

    def protects(self, protection: str) -> bool:
        """Says whether a protection is on, for what `lab` cannot switch off by itself."""
        return protection not in self.without

    @contextlib.contextmanager
    def lab(self, topology: str = "rack", **options: Any) -> Iterator[Lab]:
        """Runs a lab without what this run is to do without; at its end it is reported on, if that was asked for."""
        with self.configured(topology, **options) as lab:
            self._running.append(lab)
            recording = lab.recording(REPORT_INTERVAL_S) if self._reports else contextlib.nullcontext()
            try:
                with recording:
                    yield lab
            finally:
                self._running.remove(lab)
                self._report(lab)

    def configured(self, topology: str = "rack", **options: Any) -> Lab:
        """Returns a lab that is not yet running, without what this run is to do without."""
        if not self.protects("connection-table"):
            options["connection_table"] = False
        if not self.protects("maglev-hashing"):
            options["hash"] = "modulo"
        configure = options.pop("configure", lambda document: None)
        return Lab(topology, configure=lambda document: self._weaken(document, configure), progress=self.say, **options)

    @staticmethod
    def protected(topology: str = "rack", **options: Any) -> Lab:
        """Returns the lab that `configured` would return if nothing had to be done without: for theory."""
        return Lab(topology, **options)

    def leave(self, lab: Lab, name: str) -> Fault:
        """Has a node leave: drained, or without that protection with no goodbye."""
        return lab.drain(name) if self.protects("drain") else lab.power_off(name)

    def _report(self, lab: Lab) -> None:
        if self._reports is not None:
            self._reports.mkdir(parents=True, exist_ok=True)
            number = len(list(self._reports.glob("*.html"))) + 1
            for suffix in ("html", "md"):
                lab.report(self._reports / f"{number:02}-{lab.topology}-seed-{self.seed}.{suffix}")

    def _weaken(self, document: dict[str, Any], configure: Callable[[dict[str, Any]], None]) -> None:
        """Makes the script's changes to the configuration, and then takes out what is to be done without."""
        configure(document)
        for pool in document["pools"].values():
            if not self.protects("health-checks"):
                pool.pop("health_check", None)
            elif not self.protects("vip-checks") and "health_check" in pool:
                pool["health_check"].pop("through", None)
        if not self.protects("limits"):
            for vip in document["vips"]:
                vip.pop("new_flows_per_s", None)

    def expect(self, *verdicts: Verdict) -> None:
        """Takes verdicts into the run's result; a run is good if all of them hold."""
        for verdict in verdicts:
            self.verdicts.append(verdict)
            for lab in self._running:
                lab.timeline.judged(verdict)
            self._meet(verdict)


@dataclass(frozen=True)
class Script:
    """A script that can be run."""

    name: str
    summary: str  # the first line of its docstring
    protection: str  # what saves it; "" if it does not say
    scenario: Callable[..., None]
    options: Mapping[str, Any]  # what its function takes besides the run, with defaults

    def chosen(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Returns options from what was typed, each as the type of its default; WrongUse for others."""
        values = {}
        for name, text in texts.items():
            if name not in self.options:
                raise WrongUse(f"{self.name} takes no option {name!r}; it takes {', '.join(self.options) or 'none'}")
            kind = type(self.options[name])
            try:
                values[name] = kind(text)
            except ValueError:
                allowed = KINDS.get(kind, "a text")
                raise WrongUse(f"{self.name}: {name}={text!r} is not allowed; allowed: {allowed}") from None
        return values


@dataclass(frozen=True)
class Outcome:
    """What a run has come to."""

    script: str
    seed: int
    without: tuple[str, ...]
    options: Mapping[str, Any]
    ok: bool
    verdicts: tuple[Verdict, ...]
    total_s: float

    def document(self) -> dict[str, Any]:
        """Returns the outcome for a JSON file."""
        return asdict(self)


def shipped() -> list[str]:
    """Returns the names of the scenarios that come with the lab."""
    return sorted(path.stem for path in SCENARIOS.glob("[a-z]*.py"))


def load(name: str) -> Script:
    """Returns a shipped scenario by name, or a script by its path; WrongUse if it is none."""
    path = SCENARIOS / f"{name}.py" if name in shipped() else Path(name)
    if not path.is_file():
        raise WrongUse(f"there is no script {name!r}; name a file, or one of {', '.join(shipped())}")
    module = load_own(path, "script")
    scenario = getattr(module, "scenario", None)
    if not callable(scenario):
        raise WrongUse(f"{path} has no function scenario(run)")
    defaults = list(inspect.signature(scenario).parameters.values())[1:]
    return Script(
        name=path.stem,
        summary=(module.__doc__ or "").strip().partition("\n")[0],
        protection=getattr(module, "PROTECTION", ""),
        scenario=scenario,
        options={each.name: each.default for each in defaults},
    )


def carry_out(script: Script, run: Run, options: Mapping[str, Any]) -> Outcome:
    """Runs a script to its end.

    What did not happen in time is a verdict, too; CannotStart and WrongUse are not the lab's failures, and raised.
    """
    began = time.monotonic()
    try:
        script.scenario(run, **options)
    except (CannotStart, WrongUse):
        raise
    except LabError as error:
        run.expect(_broke_off(error))
    verdicts = tuple(run.verdicts)
    ok = bool(verdicts) and all(verdicts)
    total_s = round(time.monotonic() - began, 3)
    return Outcome(script.name, run.seed, tuple(sorted(run.without)), dict(options), ok, verdicts, total_s)


def _broke_off(error: LabError) -> Verdict:
    claim = "the lab does in time what it is asked for" if isinstance(error, NotInTime) else "the lab goes on"
    return Verdict(claim, False, "to go on with the script", str(error))
