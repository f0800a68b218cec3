"""Draining a Maglev: what a request to drain may say, and when its share of the packets has gone (Maglev §3.3).

First the VIPs are withdrawn, then the routers send the packets to the other Maglevs, then this one may be restarted.
Pure: the forwarder counts packets and looks at the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .errors import MaglevError

LONGEST_WAIT_S = 3600.0
LONGEST_QUIET_S = 60.0
DEFAULT_QUIET_S = 1.0  # routers take far less to move traffic once a route is withdrawn


class Wait(NamedTuple):
    """How long a request waits for silence, and how long silence must last; seconds. `wait_s` 0: not at all."""

    wait_s: float = 0.0
    quiet_s: float = DEFAULT_QUIET_S


def parse(query: Mapping[str, str]) -> Wait:
    """Returns what `POST /drain?wait_s=30&quiet_s=1` asks for; MaglevError with field, value and what is allowed."""
    strangers = sorted(query.keys() - {*Wait._fields})
    if strangers:
        raise MaglevError(f"{strangers[0]}: not allowed; allowed: {', '.join(Wait._fields)}")
    wait_s = _seconds(query, "wait_s", 0.0, LONGEST_WAIT_S)
    quiet_s = _seconds(query, "quiet_s", DEFAULT_QUIET_S, LONGEST_QUIET_S)
    if 0 < wait_s < quiet_s:
        raise MaglevError(f"wait_s: {wait_s:g} is not allowed; allowed: 0, or at least quiet_s, which is {quiet_s:g}")
    return Wait(wait_s, quiet_s)


def _seconds(query: Mapping[str, str], field: str, default: float, most: float) -> float:
    try:
        value = float(query.get(field, default))
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:  # refuses NaN as well
        raise MaglevError(f"{field}: {query[field]!r} is not allowed; allowed: seconds, a number from 0 to {most:g}")
    return value


class Silence:
    """Since when a count of packets has stood still. Times are monotonic seconds."""

    def __init__(self, count: int, now: float) -> None:
        self._count, self._since = count, now

    def lasts_s(self, count: int, now: float) -> float:
        """Takes in the count as it is `now`; returns for how long it has not changed."""
        if count != self._count:
            self._count, self._since = count, now
        return now - self._since
