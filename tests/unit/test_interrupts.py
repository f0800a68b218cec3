"""Ctrl-C and SIGTERM, put off until something is noted down, or passed over."""

from __future__ import annotations

import signal

import pytest

from lab import interrupts


@pytest.fixture(autouse=True)
def heeded():
    """Has Ctrl-C heeded, which a shell has commands in its background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_is_put_off_comes_afterwards():
    done = []

    def interrupted():
        with interrupts.put_off():
            signal.raise_signal(signal.SIGINT)
            done.append("noted down")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["noted down"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # as ever


def test_what_is_passed_over_never_comes():
    with interrupts.passed_over():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
