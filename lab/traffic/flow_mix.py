"""Elephants and mice: flows of published sizes that come at random, and how long each class of them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .flow_sizes import CLASSES
from .handle import Report, SenderHandle, tallies, totals
from .times import Times


@dataclass(frozen=True)
class FlowReport(Report):
    """Counts flows; `asked` are those that were due, `received` those that were fetched whole."""

    unfinished: int  # given up, or still under way
    failures: Mapping[str, int]  # why: how many
    bytes_asked: int  # of all flows that have begun
    bytes: int  # that have arrived
    completed: Mapping[str, int]  # class (mice, middling, elephants): flows that were fetched whole
    times_ms: Mapping[str, Mapping[str, float]]  # class: completion times, 50%, 90%, 99%, max
    latest_ms: float  # how late a flow began at worst

    @property
    def mbit_per_s(self) -> float:
        """Returns the load that came about, in 10^6 bits a second."""
        return self.bytes * 8e-6 / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        classes = "; ".join(
            f"{name} {count}, median {self.times_ms[name]['50%']:.1f} ms, 99 % {self.times_ms[name]['99%']:.1f} ms"
            for name, count in self.completed.items()
            if count
        )
        return (
            f"{self.sent} of {self.asked} flows begun in {self.seconds:.1f} s, {self.received} whole, "
            f"{self.unfinished} unfinished, {sum(self.failures.values())} failed; {self.mbit_per_s:.0f} Mbit/s; "
            f"{classes}"
        )


class FlowHandle(SenderHandle[FlowReport]):
    """Flows under way."""

    def _merge(self, documents: Sequence[Mapping[str, Any]]) -> FlowReport:
        failures = tallies(documents, "failures")["failures"]
        times = {name: Times.merged(document["times"][name] for document in documents) for name in CLASSES}
        sums = totals(documents, "asked", "sent", "received", "bytes", "bytes_asked")
        return FlowReport(
            **sums,
            unfinished=sums["sent"] - sums["received"] - failures.total(),
            failures=dict(failures),
            completed={name: each.count for name, each in times.items()},
            times_ms={name: each.quantiles_ms() for name, each in times.items()},
            latest_ms=max(document["latest_ms"] for document in documents),
        )
