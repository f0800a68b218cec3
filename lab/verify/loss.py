"""What got lost on the way: nothing, through a reload or a change that the data path should not feel."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from ..verdict import Verdict
from .fates import shown

if TYPE_CHECKING:
    from ..observe import Snapshot


class Delivery(Protocol):
    """What traffic reports at least: how much was sent, and how much of it came back or arrived."""

    @property
    def sent(self) -> int: ...
    @property
    def received(self) -> int: ...


def nothing_lost(report: Delivery) -> Verdict:
    """Everything that traffic sent was received, and something was sent."""
    return Verdict(
        "nothing is lost",
        report.sent > 0 and report.received >= report.sent,
        f"all of {report.sent} received" if report.sent else "something sent",
        f"{report.received} received, {report.sent - report.received} lost",
        tuple(str(report).splitlines()),
        "drops by reason (GET /statistics of each Maglev), and the timeline around the time of the loss",
    )


def nothing_dropped(before: Snapshot, after: Snapshot) -> Verdict:
    """Maglevs have forwarded every packet to a VIP that routers sent them between two snapshots.

    The routers' kernels count what they send, the forwarders what they forward, so take the second snapshot when
    nothing is on its way any more.
    """
    sent = sum(after.ecmp_packets().values()) - sum(before.ecmp_packets().values())
    drops: Counter[str] = Counter()
    lines, forwarded, restarted = [], 0, []
    for name, (old, new) in {name: (before.maglevs.get(name), view) for name, view in after.maglevs.items()}.items():
        if old is None or new is None or new.status["uptime_s"] < old.status["uptime_s"]:
            restarted.append(name)
            continue
        forwarded += new.statistics["forwarded"] - old.statistics["forwarded"]
        fresh = Counter(new.statistics["drops"])
        fresh.subtract(old.statistics["drops"])
        drops += +fresh
        lines += [f"{name} dropped {count}: {reason}" for reason, count in (+fresh).items()]
    lines += [f"{name}'s counters began anew, or its forwarder does not answer" for name in restarted]
    return Verdict(
        "Maglevs drop nothing",
        sent > 0 and forwarded >= sent and not drops and not restarted,
        f"all of {sent} packets forwarded" if sent else "packets to VIPs",
        f"{forwarded} forwarded, {sum(drops.values())} dropped, of {sent} that routers sent",
        shown(lines),
        "drops by reason (GET /statistics of each Maglev); forwarder.log; counters of the Maglevs' links (ip -s link)",
    )
