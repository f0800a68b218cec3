"""The main job: a data centre that survives its load balancers dying, told event by event.

`run` does it and returns a `Result`; how it is shown is `dashboard`'s business. Each fault is undone before the next,
because Maglev promises to survive one kind of change at a time (Maglev §3.3): the connection table covers a change of
endpoints, consistent hashing a change of Maglevs.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from . import verify
from .connections import Connection, Connections
from .laboratory import Lab
from .observe import Snapshot

TRAFFIC_MESSAGES = 20  # each connection has exchanged so many before the first fault
FRESH_CONNECTIONS = 50  # opened while an endpoint is drained: none may reach it
WARM_UP_TIMEOUT_S = 60.0
ECHO = "echo"  # the VIP that connections are held through
SAMPLE_S = 0.5  # between two looks, for a report


@dataclass(frozen=True)
class Options:
    """What a demo runs with; `topology_options` are the topology's own."""

    topology: str
    connections: int
    hash: str
    connection_table: bool
    topology_options: Mapping[str, Any]
    report: Path | None = None  # where to write a report of the run


@dataclass(frozen=True)
class Event:
    """What one event did to the connections that lived when it began."""

    event: str
    broken: int  # that should have lived
    expected_broken: int  # that had to die, because their endpoint did
    converged_s: float  # from the fault until routers and Maglevs agreed again
    longest_silence_ms: float  # of a connection that lived
    living: int  # connections afterwards
    changes: str  # maglevs or endpoints
    note: str = ""


@dataclass(frozen=True)
class Result:
    """A whole demo; `ok` if nothing broke that should have lived and no return packet crossed a Maglev."""

    ok: bool
    topology: str
    hash: str
    connection_table: bool
    connections: int
    events: Sequence[Event]
    ecmp_shares: Mapping[str, float]  # Maglev: share of the packets, all Maglevs serving
    endpoint_shares: Mapping[str, float]  # endpoint: share of the connections
    return_packets_through_maglevs: int
    start_s: float
    total_s: float

    @property
    def broken(self) -> int:
        """Returns how many connections broke that should have lived."""
        return sum(event.broken for event in self.events)

    def document(self) -> dict[str, Any]:
        """Returns the result for a JSON file."""
        return asdict(self)


class Show(Protocol):
    """What shows a demo to a person while it runs."""

    def step(self, text: str) -> None: ...
    def watch(self, lab: Lab, connections: Connections) -> None: ...
    def happened(self, event: Event) -> None: ...


@dataclass(frozen=True)
class Step:
    """Something that is done to the lab, and whose death it means."""

    name: str
    changes: str  # maglevs or endpoints
    act: Callable[[Lab], object]
    dies: str = ""  # the endpoint whose connections have to die
    drains: str = ""  # the endpoint that must get no new connection


def steps(maglevs: Sequence[str], endpoints: Sequence[str]) -> list[Step]:
    """Returns the demo's events for a lab with these nodes: faults, each undone before the next."""
    crashed, dark = maglevs[0], maglevs[-1]
    drained, killed = endpoints[-1], endpoints[-2]
    return [
        Step(f"kill {crashed}", "maglevs", lambda lab: lab.kill(crashed)),
        Step(f"revive {crashed}", "maglevs", lambda lab: lab.revive(crashed)),
        Step(f"drain {drained}", "endpoints", lambda lab: lab.drain(drained), drains=drained),
        Step(f"undrain {drained}", "endpoints", lambda lab: lab.undrain(drained)),
        Step(f"kill {killed}", "endpoints", lambda lab: lab.kill(killed), dies=killed),
        Step(f"revive {killed}", "endpoints", lambda lab: lab.revive(killed)),
        Step(f"power off {dark}", "maglevs", lambda lab: lab.power_off(dark)),
    ]


def run(options: Options, show: Show) -> Result:
    """Runs the demo; LabError if the lab cannot be built, or does not converge."""
    began = time.monotonic()
    lab = Lab(
        options.topology,
        hash=options.hash,
        connection_table=options.connection_table,
        progress=show.step,
        **options.topology_options,
    )
    with lab, _reported(lab, options.report):
        show.step(f"opening {options.connections} connections")
        fresh = lab.snapshot(tables=True)
        with lab.connections(options.connections, ECHO) as connections:
            show.watch(lab, connections)
            ecmp_shares = _traffic(lab, connections, show)
            _judge_balance(lab, fresh, connections)
            endpoint_shares = shares(Counter(connection.endpoint for connection in connections.all()))
            events = [_carry_out(step, lab, connections, show) for step in steps(lab.maglevs, lab.endpoints)]
            last = lab.snapshot()
            lab.timeline.judged(verify.direct_server_return(last, fresh))
            lab.timeline.judged(verify.maglevs_choose_alike(last))
        show.step("stopping")
    return Result(
        ok=last.return_packets() == 0 and not any(event.broken for event in events),
        topology=options.topology,
        hash=options.hash,
        connection_table=options.connection_table,
        connections=options.connections,
        events=events,
        ecmp_shares=ecmp_shares,
        endpoint_shares=endpoint_shares,
        return_packets_through_maglevs=last.return_packets(),
        start_s=round(lab.start_s, 3),
        total_s=round(time.monotonic() - began, 3),
    )


@contextlib.contextmanager
def _reported(lab: Lab, path: Path | None) -> Iterator[None]:
    """Records the lab, and writes a report at the end, however it comes, if somebody wants one."""
    if path is None:
        yield
        return
    try:
        with lab.recording(SAMPLE_S):
            yield
    finally:
        lab.report(path)


def _judge_balance(lab: Lab, before: Snapshot, connections: Connections) -> None:
    """Enters verdicts on how the first connections were spread over Maglevs and endpoints."""
    lab.timeline.judged(verify.ecmp_balanced(before, lab.snapshot()))
    pool = next(vip.backed_by for vip in lab.config.vips if vip.name == ECHO)
    flows, shares = verify.flows_by_endpoint(connections.all()), before.table_shares(pool)
    lab.timeline.judged(verify.endpoints_match_shares(flows, shares))


def _traffic(lab: Lab, connections: Connections, show: Show) -> dict[str, float]:
    """Lets the connections talk; returns each Maglev's share of the packets that the routers sent."""
    show.step(f"traffic: {TRAFFIC_MESSAGES} messages on every connection")
    before = lab.snapshot().ecmp_packets()
    connections.wait_answered(TRAFFIC_MESSAGES, WARM_UP_TIMEOUT_S)
    after = lab.snapshot().ecmp_packets()
    return shares({maglev: after[maglev] - before[maglev] for maglev in after})


def _carry_out(step: Step, lab: Lab, connections: Connections, show: Show) -> Event:
    """Does one thing to the lab, waits until it has settled, and returns what became of the connections."""
    show.step(step.name)
    before = connections.all()
    connections.mark()
    step.act(lab)
    converged_s = lab.wait_converged()
    note = _fresh_avoid(lab, step.drains) if step.drains else ""
    connections.wait_settled()
    after = connections.all()
    event = judge(step, before, after, converged_s, note)
    verdict = verify.only_the_doomed_died(after, {step.dies} - {""}, before)
    lab.timeline.judged(replace(verdict, claim=f"{step.name}: {verdict.claim}"))
    show.happened(event)
    return event


def _fresh_avoid(lab: Lab, drained: str) -> str:
    """Opens new connections while an endpoint is drained, and returns how many reached it, in words."""
    with lab.connections(FRESH_CONNECTIONS) as fresh:
        reached = sum(connection.endpoint == drained for connection in fresh.all())
    return f"{reached or 'none'} of {FRESH_CONNECTIONS} new connections went to {drained}"


def judge(
    step: Step, before: Sequence[Connection], after: Sequence[Connection], converged_s: float, note: str
) -> Event:
    """Returns what an event did, from every connection before and after it: pure."""
    lived = {connection.name: connection for connection in before if connection.fate == "alive"}
    doomed = {name for name, connection in lived.items() if connection.endpoint == step.dies}
    broken = {connection.name for connection in after if connection.name in lived and connection.is_broken}
    silences = [connection.longest_silence_ms for connection in after if connection.fate == "alive"]
    return Event(
        event=step.name,
        broken=len(broken - doomed),
        expected_broken=len(doomed),
        converged_s=round(converged_s, 3),
        longest_silence_ms=max(silences, default=0.0),
        living=len(silences),
        changes=step.changes,
        note=note,
    )


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Returns each count as a share of all, rounded to four places; all 0 if there is nothing."""
    total = sum(counts.values()) or 1
    return {name: round(count / total, 4) for name, count in sorted(counts.items())}
