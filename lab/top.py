"""`maglab top`: a whole lab, live, on a terminal. It attaches to a lab that runs in another process."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .errors import Terminated
from .site import Site
from .top_counters import page
from .top_look import Look, Watcher
from .top_picture import KEYS, SORTS, Line, picture

REFRESH_S = 1.0
FIRST_REFRESH_S = 0.3  # so that there are rates soon
WIDTH_OF_PLAIN, HEIGHT_OF_PLAIN = 100, 60  # where nobody looks at a terminal


@dataclass(frozen=True)
class State:
    """What the keys have changed."""

    sort: str = SORTS[0]
    paused: bool = False
    over: bool = False
    counting: bool = False  # shows the page of counters


def pressed(state: State, key: str) -> State:
    """Returns the state after a key."""
    if key in ("q", "Q", "\x03", "\x04", ""):  # Ctrl-C, Ctrl-D, and a terminal that has gone
        return replace(state, over=True)
    if key in ("p", " "):
        return replace(state, paused=not state.paused)
    if key == "c":
        return replace(state, counting=not state.counting)
    if key == "s":
        return replace(state, sort=SORTS[(SORTS.index(state.sort) + 1) % len(SORTS)])
    return state


def run(site: Site) -> None:
    """Shows a lab until `q` or Ctrl-C is pressed, or the lab ends; LabError if it does not run."""
    watcher = Watcher(site)
    try:
        _show(watcher)
    except Terminated:
        raise
    except KeyboardInterrupt:
        pass  # the screen is as it was before


def _show(watcher: Watcher) -> None:
    console = Console(highlight=False)
    before = now = watcher.look()
    counted: dict[str, str | None] = {}  # metrics, only while they are shown: they are long
    with _keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        state, next_look = State(), time.monotonic() + FIRST_REFRESH_S
        while not state.over:
            drawn = _counters(console, counted, now) if state.counting else _drawn(console, before, now, state)
            live.update(drawn, refresh=True)
            if select.select([keyboard], [], [], max(0.0, next_look - time.monotonic()))[0]:
                state, was = pressed(state, os.read(keyboard, 1).decode("ascii", "replace")), state
                if state.counting and not was.counting:
                    counted = watcher.counters()
                continue
            next_look = time.monotonic() + REFRESH_S
            if not state.paused:
                before, now = now, watcher.look()
                counted = watcher.counters() if state.counting else {}


def once(site: Site) -> str:
    """Returns what a lab looks like now, as plain text."""
    watcher = Watcher(site)
    before = watcher.look()
    time.sleep(FIRST_REFRESH_S)
    lines = picture(before, watcher.look(), WIDTH_OF_PLAIN, HEIGHT_OF_PLAIN)
    return "\n".join(line.text.rstrip() for line in lines if line.text.strip() != KEYS).rstrip()


def _drawn(console: Console, before: Look, now: Look, state: State) -> Group:
    width, height = console.size
    return Group(*map(_text, picture(before, now, width, height, state.sort, state.paused)))


def _counters(console: Console, counted: Mapping[str, str | None], now: Look) -> Group:
    names = {address: node.name for node in now.wiring.nodes for address in node.addresses}
    return Group(*map(_text, page(counted, names, *console.size)))


def _text(line: Line) -> Text:
    return Text(line.text, style=line.style, no_wrap=True, overflow="crop")


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Has keys come as they are pressed, unseen; the terminal is as before at the end."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def is_possible() -> bool:
    """Says whether somebody looks at a terminal, and can press keys."""
    return sys.stdin.isatty() and sys.stdout.isatty()
