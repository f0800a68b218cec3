"""Exercise 8: who is healthy, and what BGP is told of it. Your code; `maglab check 8` judges it.

The functions are those of `maglev.health`, `maglev.announcements` and `maglev.controller`, with the same names and
arguments, so that a lab can run with yours in their place. Steps 1 to 4 look at no clock: `now` is given, in seconds.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from maglev.announcements import Route  # a network of one address or more, as ip_network makes it
from maglev.config import HealthCheck  # rise, fall; flap_changes, flap_window_s, hold_down_s
from maglev.controller import ExaBgp
from maglev.engine.control import Client, ControlError
from maglev.errors import MaglevError
from maglev.health import State, Verdict  # State(verdict, streak, changes, held_until)


def step(state: State, passed: bool, method: HealthCheck, now: float) -> State:
    """Returns the state of a health check after one more result, at `now`.

    Step 1. It takes `method.rise` passes in a row to turn a verdict to HEALTHY, and `method.fall` failures in a row to
    turn it to UNHEALTHY; `state.streak` counts the results in a row that contradict the verdict, and is 0 after one
    that agrees. While the verdict is UNKNOWN, the first pass decides at once, and failures as above.

    Step 2. `state.changes` has the times at which the verdict turned from one known value to another within the last
    `flap_window_s`, the oldest first; a first verdict is no change. With the `flap_changes`th of them the address
    flaps: its verdict is UNHEALTHY, whatever the result said, until `held_until`, `hold_down_s` from now, and `changes`
    is empty. Meanwhile results go on to be counted, `streak` up to what is needed; the first result at `held_until` or
    later with a streak long enough turns the verdict. With `flap_changes` 0 nothing is held, and `changes` stays empty.
    """
    raise NotImplementedError("step 1: count what contradicts the verdict, and turn it")


def wanted(status: Mapping[str, Any] | None) -> frozenset[Route]:
    """Returns the routes to announce, given what a forwarder answers to GET /readiness, or None if it did not.

    `status["vips"]` has them as texts, such as 192.0.2.1 or 2001:db8::/64. All of them, if `ready` is true and
    `draining` is false; none otherwise. An answer that lacks something, or cannot be understood, is none.
    """
    raise NotImplementedError("step 3: all VIPs of a forwarder that is ready and does not drain, or none")


def commands(announced: frozenset[Route], wanted: frozenset[Route]) -> tuple[str, ...]:
    """Returns the fewest commands to ExaBGP that lead from what is announced to what is wanted.

    withdraw route 192.0.2.9/32 next-hop self
    announce route 192.0.2.10/32 next-hop self

    Withdrawals first, each kind in the order of addresses as numbers, IPv4 before IPv6.
    """
    raise NotImplementedError("step 4: withdraw what is too much, announce what is missing")


def run(locate: Callable[[], tuple[Path, str]]) -> None:
    """Keeps ExaBGP's announcements in step with what the forwarder says of itself, until ExaBGP goes.

    Step 5. `locate()` returns the forwarder's control socket and its name. `Client(path, timeout_s)` asks there:
    `request("GET", "/readiness")` returns a document, or raises ControlError if none comes within `timeout_s`.
    `speaker.command(text)` returns whether ExaBGP has acknowledged a command; one that failed has not happened. What is
    announced already is not announced again.

    Step 6. A forwarder that does not answer is not announced, and is asked again. `locate` raises MaglevError while
    there is no configuration: try again a second later. It ends when `speaker.alive` is false, and not before. Whatever
    you print goes to standard error: standard output is ExaBGP's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a shared terminal is ExaBGP's to handle
    speaker = ExaBgp(sys.stdin, sys.stdout)
    while speaker.alive:
        raise NotImplementedError("step 5: ask the forwarder, and tell ExaBGP what changes")
