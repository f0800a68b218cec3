"""Bulk transfers: our own over one connection each, and iperf3, which needs several connections to one endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import WrongUse
from .handle import Report, SenderHandle, tallies, totals
from .program import Program, ProgramHandle, failed

if TYPE_CHECKING:
    from maglev.config import Vip

    from ..nodes import LabNode

IPERF_PORT = 5201
TAKEN_PORTS = (7, 80, 9400)  # at which endpoints serve something else: numbers, HTTP, metrics


@dataclass(frozen=True)
class BulkReport(Report):
    """Counts bytes of payload; `received` is what the other end says, or what came down."""

    retransmits: int | None = None  # TCP segments that iperf3 had to send again
    damaged: int = 0  # blocks whose SHA-256 was wrong
    failures: Mapping[str, int] = field(default_factory=dict)  # why connections broke: how many
    endpoints: Mapping[str, int] = field(default_factory=dict)  # endpoint: blocks that it took

    @property
    def mbit_per_s(self) -> float:
        """Returns the goodput, in 10^6 bits a second."""
        return self.received * 8e-6 / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        failures = ", ".join(f"{count} broken: {why}" for why, count in self.failures.items()) or "none broken"
        size = f"{self.received / 1e6:.1f} of {self.sent / 1e6:.1f} MB in {self.seconds:.1f} s"
        return f"{size}, {self.mbit_per_s:.0f} Mbit/s; {self.damaged} blocks damaged, connections: {failures}"


class BulkHandle(SenderHandle[BulkReport]):
    """Transfers of our own under way."""

    def _merge(self, documents: Sequence[Mapping[str, Any]]) -> BulkReport:
        counts = totals(documents, "sent", "received", "damaged")
        return BulkReport(asked=None, **counts, **tallies(documents, "failures", "endpoints"))


class IperfHandle(ProgramHandle[BulkReport]):
    """iperf3 under way; its servers on the endpoints go with it."""

    servers: Sequence[LabNode] = ()

    def _read(self, programs: Sequence[Program], seconds: float, finished: bool) -> BulkReport:
        (program,) = programs
        if not finished:
            return BulkReport(None, 0, 0, seconds, False)
        try:
            return parse_iperf3(program.output)
        except (ValueError, KeyError):
            raise failed(program) from None

    def _end(self) -> None:
        super()._end()
        stop_servers(self.servers)

    def _kill(self) -> None:
        super()._kill()
        stop_servers(self.servers)


def stop_servers(nodes: Sequence[LabNode]) -> None:
    """Stops iperf3's servers, where they still run: a node that was killed has none any more."""
    for node in nodes:
        if "iperf3" in node.daemons:
            node.stop_daemons(names=["iperf3"])


def parse_iperf3(text: str) -> BulkReport:
    """Returns what `iperf3 -J` says; ValueError if it is no JSON.

    One that was interrupted has not heard what the server received: then that is 0, and it says why under `failures`.
    """
    document = json.loads(text)
    sent, received = (document["end"].get(f"sum_{name}", {}) for name in ("sent", "received"))
    failures = {document["error"]: 1} if "error" in document else {}
    counts = (sent.get("bytes", 0), received.get("bytes", 0), received.get("seconds", sent.get("seconds", 0.0)))
    return BulkReport(None, *counts, True, retransmits=sent.get("retransmits"), failures=failures)


def check_iperf3(vip: Vip) -> int:
    """Returns the port that iperf3 uses at a VIP; WrongUse if that cannot work."""
    if vip.affinity != "client":
        raise WrongUse(
            f"iperf3 opens a connection for control and others for data, and VIP {vip.name!r} may send them to "
            'different endpoints: it needs a VIP with "affinity: client"; program="http" does without'
        )
    if vip.port in TAKEN_PORTS:
        raise WrongUse(
            f"endpoints serve something else at port {vip.port} of VIP {vip.name!r}; iperf3 needs a VIP with another "
            f"port, such as {IPERF_PORT}"
        )
    return vip.port or IPERF_PORT
