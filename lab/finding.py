"""What was found where somebody has looked: on this machine, or on a cluster's servers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is there, whether a lab can do without, and what follows."""

    what: str
    found: bool
    needed: bool
    follows: str
