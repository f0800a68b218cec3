"""UDP flows whose datagrams are numbered: what was lost, doubled, overtaken, or answered by another endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .handle import Report, SenderHandle, tallies, totals
from .times import Times

COUNTS = (
    "asked", "sent", "received", "lost", "duplicates", "reordered", "endpoint_changes", "moved_flows", "strange",
    "refused",
)  # fmt: skip


@dataclass(frozen=True)
class DatagramReport(Report):
    """Counts datagrams; `received` are those that were answered."""

    lost: int  # not answered, or not yet
    duplicates: int  # answers to what had been answered
    reordered: int  # answers that came after a later one (RFC 4737)
    endpoint_changes: int  # answers from another endpoint than the flow's one before
    moved_flows: int  # flows with such a change
    strange: int  # what came and answers nothing that was sent
    refused: int  # what the client's kernel did not send
    endpoints: Mapping[str, int]  # endpoint: datagrams that it answered
    times_ms: Mapping[str, float]  # from sending until the answer: 50%, 90%, 99%, max

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.1f} ms" for name, value in self.times_ms.items())
        return (
            f"{self.sent} of {self.asked} datagrams sent in {self.seconds:.1f} s, {self.received} answered, "
            f"{self.lost} lost, {self.duplicates} doubled, {self.reordered} overtaken, "
            f"{self.endpoint_changes} changes of endpoint in {self.moved_flows} flows; {times}"
        )


class DatagramHandle(SenderHandle[DatagramReport]):
    """Datagrams under way."""

    def _merge(self, documents: Sequence[Mapping[str, Any]]) -> DatagramReport:
        times_ms = Times.merged(document["times"] for document in documents).quantiles_ms()
        endpoints = dict(tallies(documents, "endpoints")["endpoints"])
        return DatagramReport(**totals(documents, *COUNTS), endpoints=endpoints, times_ms=times_ms)
