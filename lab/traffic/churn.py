"""New connections all the time: each is opened, answered once, and gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .handle import Report, SenderHandle, tallies, totals
from .times import Times


@dataclass(frozen=True)
class ChurnReport(Report):
    """Counts connections; `received` are those that an endpoint answered."""

    failures: Mapping[str, int]  # why: how many
    endpoints: Mapping[str, int]  # endpoint: connections that it answered
    times_ms: Mapping[str, float]  # from the first SYN until the answer: 50%, 90%, 99%, max

    def __str__(self) -> str:
        failures = ", ".join(f"{count} failed: {why}" for why, count in self.failures.items()) or "none failed"
        opened = f"{self.sent} of {self.asked} connections opened in {self.seconds:.1f} s"
        return f"{opened}, {self.received} answered, {failures}"


class ChurnHandle(SenderHandle[ChurnReport]):
    """Connections that come and go."""

    def _merge(self, documents: Sequence[Mapping[str, Any]]) -> ChurnReport:
        times_ms = Times.merged(document["times"] for document in documents).quantiles_ms()
        counts = totals(documents, "asked", "sent", "received")
        return ChurnReport(**counts, **tallies(documents, "failures", "endpoints"), times_ms=times_ms)
