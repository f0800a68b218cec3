"""No power: nothing leaves a node any more, and nothing is answered."""

from __future__ import annotations

from ..nodes import LabNode

DARKNESS = """table inet maglab_dark {
    chain out { type filter hook output priority -300; policy drop; }
    chain in { type filter hook input priority -300; policy drop; }
    chain through { type filter hook forward priority -300; policy drop; }
}
table arp maglab_dark {
    chain out { type filter hook output priority 0; policy drop; }
    chain in { type filter hook input priority 0; policy drop; }
}
"""
LIGHT = "delete table inet maglab_dark\ndelete table arp maglab_dark\n"


def power_off(node: LabNode) -> None:
    """Takes a node's power without a goodbye: nothing leaves it any more, nothing is answered, and all processes die.

    The links stay up, as behind a switch: neighbours learn of it only by silence.
    """
    node.run("nft", "-f", "-", text=DARKNESS)
    node.stop_daemons()


def light(node: LabNode) -> None:
    """Lets a node's packets through again after `power_off`."""
    node.run("nft", "-f", "-", text=LIGHT)
