"""Ctrl-C, SIGTERM and SIGHUP: each takes a lab away, and at moments when it would leave something behind it waits."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from .errors import Terminated

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_on_signals() -> None:
    """Has SIGTERM, and the end of the terminal, raise Terminated in this, the main thread.

    Whoever has them handled otherwise, or ignored, as `nohup` does, keeps that.
    """
    for number, leave in ((signal.SIGTERM, _leave), (signal.SIGHUP, _hang_up)):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _hang_up(number: int, frame: FrameType | None) -> NoReturn:
    """Leaves as well: nobody is left whom anything could be told."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    raise Terminated


@contextlib.contextmanager
def passed_over() -> Iterator[None]:
    """Ignores them meanwhile; in the main thread, which alone gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Has them come afterwards, so that what is begun is also noted down; in the main thread, which alone gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
