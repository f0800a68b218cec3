"""Probes endpoints, all checks in one event loop in one thread (Maglev §2.2).

`Prober` decides when to probe and keeps the states; `engine.probing` sends the probes, and `maglev.health` decides
what a result means. A probe passes by returning and fails by raising, so everything that goes wrong is a failed probe
with a reason, never the end of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import count

from maglev import doubt
from maglev.engine import scripts
from maglev.engine.probing import Probes
from maglev.engine.vip_path import VipPath
from maglev.health import Check, State, Verdict, step

States = Mapping[Check, State]

IN_FLIGHT = 1024  # probes at a time, each with a descriptor: a thousand dead endpoints are checked in time too
OTHER_DESCRIPTORS = 256  # what the rest of the process may need
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, spread evenly however many there are
TOGETHER_S = 0.05  # checks that are due within so long are probed together: waking up costs more than a probe
GATHER_S = 0.005  # a changed verdict waits so long for others: when a rack dies, its endpoints change together
STOP_S = 5.0  # for probes that are under way


def phase(number: int, seed: str = "", steps: int | None = None) -> float:
    """Returns where in its interval the check with a number is probed, from 0 to 1: any run of numbers spreads out.

    With `steps`, it is at one of so many places. Another seed shifts them all: Maglevs that probe the same endpoints do
    not all do so at the same moment.
    """
    place = number * GOLDEN % 1
    if steps is not None:
        place = int(place * steps) / steps
    return (zlib.crc32(seed.encode()) / 2**32 + place) % 1


def pause_s(now: float, interval_s: float, its_phase: float) -> float:
    """Returns how long it is from `now` until a check's phase comes again, in seconds."""
    return (its_phase - now / interval_s) % 1 * interval_s or interval_s


def next_start(started: float, interval_s: float, its_phase: float) -> float:
    """Returns when a check that was `started` then is probed next: at its phase, at least a quarter of an interval on.

    From the start of the last probe, not from its end: one that waits for its whole timeout must not cost two turns.
    """
    earliest = started + interval_s / 4
    return earliest + pause_s(earliest, interval_s, its_phase)


def slots() -> int:
    """Returns how many probes this process may have under way, its limit of descriptors raised as far as need be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IN_FLIGHT + OTHER_DESCRIPTORS
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return min(IN_FLIGHT, max(limit - OTHER_DESCRIPTORS, OTHER_DESCRIPTORS))


class Prober:
    """Runs health checks. Methods may be called from any thread; `on_change` is called from the prober's own.

    `on_change` gets the states whenever a verdict has changed, several changes at once where they come together.
    `path` is the way of the checks through the data path, `seed` decides when in its interval each check is probed.
    If some of the checks make it doubt itself (`maglev.doubt`), it is not complete after none of these has been
    answered, before it knows of all of them anew; until it is complete it tells of no changes.
    """

    def __init__(
        self,
        on_change: Callable[[States], None],
        probe: Callable[[Check], Awaitable[None]] | None = None,
        path: VipPath | None = None,
        seed: str = "",
    ) -> None:
        self._on_change = on_change
        self._probes = Probes(path)
        self._probe = probe or self._probes.probe
        self._seed = seed
        self._doubting: frozenset[Check] = frozenset()
        self._due: set[Check] = set()  # to turn, when all do
        self._lock = threading.Lock()
        self._states: States = {}  # exchanged, never changed: snapshots stay as they are
        self._last_errors: dict[Check, str] = {}
        self._complete = False
        self._tasks: dict[Check, asyncio.Task[None]] = {}
        self._started = count()
        self._news = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="probes", daemon=True)

    def start(self) -> None:
        """Starts to probe; all checks are probed at once, then each in its turn."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Ends all probing; states remain."""
        if self._ready.is_set():
            self._in_loop(self._end)
            self._thread.join(STOP_S)

    def set_checks(self, checks: Iterable[Check], doubting: Iterable[Check] = ()) -> None:
        """Replaces the checks; those that stay keep their state, new ones begin unknown and are probed at once.

        `doubting` are those among them that make it doubt itself when none of them is answered.
        """
        with self._lock:
            self._doubting = frozenset(doubting)
            self._due &= self._doubting
            self._states = {check: self._states.get(check, State()) for check in checks}
        if self._ready.is_set():
            self._in_loop(self._reconcile)

    def states(self) -> States:
        """Returns the states as they are now."""
        return self._states

    def last_errors(self) -> dict[Check, str]:
        """Returns why the latest probe failed, for every check whose latest probe did."""
        with self._lock:
            return dict(self._last_errors)

    @property
    def complete(self) -> bool:
        """Says whether every check has had a verdict, and `on_change` has heard of it.

        Once true it stays so, unless it doubts itself: a check that a new configuration brings leaves its own endpoints
        out until it has a verdict, and is no reason to stop serving all others.
        """
        return self._complete

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._slots = asyncio.Semaphore(slots())
        self._script_slots = asyncio.Semaphore(scripts.AT_ONCE)
        self._ready.set()
        try:
            self._reconcile()
            await self._ended
        finally:
            self._probes.close()

    def _in_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(callback)

    def _end(self, error: BaseException | None = None) -> None:
        """Ends the thread; with an error, which is the program's own, it ends loudly."""
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)

    def _reconcile(self) -> None:
        states = self._states
        for check in self._tasks.keys() - states.keys():
            self._tasks.pop(check).cancel()
        for check in states:
            if check not in self._tasks:
                steps = max(1, round(check.method.interval_s / TOGETHER_S))
                its_phase = phase(next(self._started), self._seed, steps)
                self._tasks[check] = self._loop.create_task(self._repeat(check, its_phase))
                self._tasks[check].add_done_callback(self._task_ended)
        with self._lock:
            self._last_errors = {check: why for check, why in self._last_errors.items() if check in states}
        self._publish()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._end(task.exception())

    async def _repeat(self, check: Check, its_phase: float) -> None:
        slots = self._script_slots if check.method.type == "script" else self._slots
        while True:
            async with slots:
                started = self._loop.time()
                self._record(check, await self._reason_to_fail(check))
            due = next_start(started, check.method.interval_s, its_phase)
            await asyncio.sleep(max(0.0, due - self._loop.time()))

    async def _reason_to_fail(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(check.method.timeout_s):
                await self._probe(check)
        except TimeoutError:
            return f"no answer within {check.method.timeout_s:g} s"
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)
        except Exception as error:  # whatever it is, it must end neither this check nor the others
            return str(error) or type(error).__name__
        return None

    def _record(self, check: Check, reason: str | None) -> None:
        with self._lock:
            old = self._states.get(check)
            if old is None:
                return
            self._count(check, reason)
            turned = self._states[check].verdict is not old.verdict
        if turned and not self._news:
            self._news = True
            self._loop.call_later(GATHER_S, self._publish)

    def _count(self, check: Check, reason: str | None) -> None:
        """Counts a result: otherwise than usual, while none of those answers that make it doubt itself."""
        now, passed = self._loop.time(), reason is None
        if passed and check in self._doubting and self._unanswered():
            self._complete = self._complete and not self._cut_off()
            self._states = {**self._states, **doubt.answered_again(self._doubtful(), now)}
            self._due.clear()
        self._last_errors.pop(check, None)
        if reason is not None:
            self._last_errors[check] = reason
        old = self._states[check]
        new = step(old, passed, check.method, now)
        falls = old.verdict is Verdict.HEALTHY and new.verdict is Verdict.UNHEALTHY
        if falls and check in self._doubting and self._unanswered():
            self._due.add(check)
            self._states = {**self._states, **doubt.failed_like_all(self._doubtful(), self._due, now)}
        elif new != old:
            self._states = {**self._states, check: new}

    def _doubtful(self) -> States:
        return {check: state for check, state in self._states.items() if check in self._doubting}

    def _unanswered(self) -> bool:
        return self._doubting.issubset(self._last_errors)

    def _cut_off(self) -> bool:
        return doubt.reaches_nobody(self._doubtful())

    def _publish(self) -> None:
        """Tells of changed verdicts, and only then of completeness."""
        try:
            news, self._news = self._news, False
            states, cut_off = self._states, self._cut_off()
            all_known = all(state.verdict is not Verdict.UNKNOWN for state in states.values())
            if news and (self._complete or all_known or not self._doubting):
                self._on_change(states)
            self._complete = (self._complete or all_known) and not cut_off
        except Exception as error:  # in `on_change`; swallowed by the loop unless it ends it
            self._end(error)
