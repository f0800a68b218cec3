"""What the tests of daemons share: asking one that may not be there yet."""

from __future__ import annotations

from maglev.engine.control import ControlError, request


def answer_of(control, path="/status"):
    """What a daemon answers on its control socket; an empty answer while nobody does."""
    try:
        return request(control, "GET", path)
    except ControlError:
        return {}
