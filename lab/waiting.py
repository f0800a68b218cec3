"""Waiting for a condition with a deadline: the only way in which the laboratory waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from .errors import NotInTime

POLL_S = 0.01


def wait_until(missing: Callable[[], str], timeout_s: float, what: str, poll_s: float = POLL_S) -> float:
    """Waits until `missing` returns "" instead of what is still missing; returns how long that took, in seconds.

    NotInTime, with what was missing last, if it does not within `timeout_s`.
    """
    start = time.monotonic()
    while lacks := missing():
        if time.monotonic() - start > timeout_s:
            raise NotInTime(f"{what} did not happen within {timeout_s:g} s: {lacks}")
        time.sleep(poll_s)
    return time.monotonic() - start
