"""The laboratory: builds a topology, injects traffic and faults, observes, judges, shows, cleans up.

from lab import Lab

with Lab("rack", maglevs=3, endpoints=4) as lab:
    with lab.connections(300) as conns:          # long-lived TCP through the VIP
        lab.kill("m2")
        lab.wait_converged()
    assert conns.broken == 0, conns.report()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .laboratory import Lab as Lab

__all__ = ["Lab"]


def __getattr__(name: str) -> object:
    """Imports `Lab` when it is first asked for: nodes under plain `mn` need only a part of this package."""
    if name == "Lab":
        from .laboratory import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
