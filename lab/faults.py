"""Faults, real ones: what is done to a node, and how it is undone.

A fault has happened when its function returns. It can be used as a context manager, which undoes it at the end:

    with lab.kill("m2"):
        lab.wait_converged()
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from .nodes import LabNode

DARKNESS = """table inet maglab_dark {
    chain out { type filter hook output priority -300; policy drop; }
    chain in { type filter hook input priority -300; policy drop; }
}
table arp maglab_dark {
    chain out { type filter hook output priority 0; policy drop; }
    chain in { type filter hook input priority 0; policy drop; }
}
"""
LIGHT = "delete table inet maglab_dark\ndelete table arp maglab_dark\n"


class Fault:
    """A fault that has happened to a node, until it is undone."""

    def __init__(self, what: str, node: str, undo: Callable[[], None]) -> None:
        self.what, self.node = what, node
        self._undo: Callable[[], None] | None = undo

    def undo(self) -> None:
        """Makes good what was done; a second time does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __str__(self) -> str:
        return f"{self.what} {self.node}"


def power_off(node: LabNode) -> None:
    """Takes a node's power without a goodbye: nothing leaves it any more, nothing is answered, and all processes die.

    The links stay up, as behind a switch: neighbours learn of it only by silence.
    """
    node.run("nft", "-f", "-", text=DARKNESS)
    node.stop_daemons()


def light(node: LabNode) -> None:
    """Lets a node's packets through again after `power_off`."""
    node.run("nft", "-f", "-", text=LIGHT)
