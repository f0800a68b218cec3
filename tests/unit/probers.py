"""What the tests of probes share: a prober that runs while a block lasts, and waiting for what it finds."""

from __future__ import annotations

import contextlib
import threading
import time

from maglev.engine.probes import Prober

DEADLINE_S = 10.0


def until(condition, what):
    """Waits until a condition holds; AssertionError, saying what did not happen, if it does not in time."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE_S} s"
        threading.Event().wait(0.002)


@contextlib.contextmanager
def probing(checks, on_change=lambda states: None, probe=None, path=None, doubting=()):
    """A prober of some checks; `path` is how those through the data path go."""
    prober = Prober(on_change, probe, path)
    prober.set_checks(checks, doubting)
    prober.start()
    try:
        yield prober
    finally:
        prober.stop()
