"""Holds TCP connections open from a client, and knows the fate of each: runs on a client node, a process a client.

Every connection sends a numbered message, waits for the endpoint's name and the same number, rests, and goes on.
Commands come as lines on standard input, answers go as JSON lines to standard output:

    open N S     opens N more connections, and answers when each is open or has failed; from now on each rests S seconds
    report       what has changed since the last answer
    mark         begins a new measurement of the longest silence
    close        closes those that live, and answers with the last report

An answer is a list of rows, one for each connection that something has happened to since the answer before: to follow
thousands of connections costs no more than those that speak. Times are the machine's monotonic seconds, which the lab
reads as well.

A connection's fate is `opening`, `alive`, or how it ended: `refused`, `reset`, `garbled` (an answer that was not the
question's, or from another endpoint), `closed` (by us). Whether a living one is `stalled` the lab knows from its times;
with `--replace` the holder gives it up as `stalled`, and opens another for each that has broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import threading
import time
from typing import Any

from .traffic.senders.obeying import allow_many_files, answer

OPEN_AT_ONCE = 128
REPLACE_S = 1.0  # that a client waits before it tries again
CONNECT_TIMEOUT_S = 5.0


class Held(asyncio.Protocol):
    """One connection and what is known of it."""

    def __init__(self, number: int, holder: Holder) -> None:
        self.number, self._holder = number, holder
        self.fate = "opening"
        self.endpoint = ""
        self.messages = self.port = 0
        self.asked_at = self.opened_at = self.answered_at = time.monotonic()
        self.answer_was_asked_at = 0.0  # when the question was asked that was answered last
        self.longest_silence = 0.0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._part = b""
        self._transport: asyncio.Transport | None = None
        self._rest: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]
        self.ask()

    def ask(self) -> None:
        """Sends the next numbered message."""
        assert self._transport is not None
        self.messages += 1
        self.asked_at = time.monotonic()
        self._transport.write(b"%d\n" % self.messages)
        self._holder.changed.add(self)

    def data_received(self, data: bytes) -> None:
        self._part += data
        if self._part.endswith(b"\n"):
            line, self._part = self._part, b""
            self._answered(line.decode("ascii", "replace").split())

    def _answered(self, words: list[str]) -> None:
        self.endpoint = self.endpoint or words[0] if words else self.endpoint
        if words != [self.endpoint, str(self.messages)]:
            self.end("garbled")
            return
        now = time.monotonic()
        self.longest_silence = max(self.longest_silence, now - self.answered_at)
        self.answered_at, self.answer_was_asked_at = now, self.asked_at
        self._holder.changed.add(self)
        if self.fate == "opening":
            self.fate, self.opened_at = "alive", now
            self._settle()
        self._rest = asyncio.get_running_loop().call_later(self._holder.rest_s(first=self.messages == 1), self.ask)

    def give_up_if_silent_for(self, longest_s: float) -> None:
        """Ends the connection as stalled if its last answer came so long ago."""
        if self.fate == "alive" and time.monotonic() - self.answered_at > longest_s:
            self.end("stalled")

    def connection_lost(self, error: Exception | None) -> None:
        self.end("refused" if self.fate == "opening" else "reset")

    def end(self, fate: str) -> None:
        """Ends the connection, unless it has ended."""
        if self.fate in ("opening", "alive"):
            self.fate = fate
            self._holder.changed.add(self)
        if self._rest is not None:
            self._rest.cancel()
        if self._transport is not None:
            self._transport.close()
        self._settle()

    def _settle(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def row(self) -> list[Any]:
        """Returns what is known, as `Connections` reads it."""
        times = [self.longest_silence, self.answered_at, self.answer_was_asked_at, self.opened_at]
        return [self.number, self.fate, self.endpoint, self.messages, *(round(each, 5) for each in times), self.port]


class Holder:
    """All connections of this client."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._interval_s = 0.1
        self._held: list[Held] = []
        self._wanted = 0
        self._phases = random.Random(port)
        self.changed: set[Held] = set()

    def rest_s(self, first: bool) -> float:
        """Returns how long a connection rests: at first so that not all speak at once ever after."""
        return self._interval_s * (self._phases.random() if first else 1.0)

    async def open(self, count: int) -> None:
        """Opens connections, some at once; they talk from then on."""
        gate = asyncio.Semaphore(OPEN_AT_ONCE)

        async def one(held: Held) -> None:
            async with gate:
                held.opened_at = held.answered_at = time.monotonic()
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        await asyncio.get_running_loop().create_connection(lambda: held, *self._target)
                        await held.opened
                except (TimeoutError, OSError):
                    held.end("refused")

        fresh = [Held(len(self._held) + number, self) for number in range(count)]
        self._held += fresh
        await asyncio.gather(*map(one, fresh))

    async def replace(self, stall_s: float) -> None:
        """Gives up those that are silent for so long, beside their rest, and opens as many as have broken; for ever."""
        under_way: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(REPLACE_S)
            for held in self._held:
                held.give_up_if_silent_for(stall_s + self._interval_s)
            living = sum(held.fate in ("opening", "alive") for held in self._held)
            if living < self._wanted:
                under_way = {task for task in under_way if not task.done()}
                under_way.add(asyncio.create_task(self.open(self._wanted - living)))

    def report(self) -> list[list[Any]]:
        """Returns what has changed since the last report."""
        changed, self.changed = self.changed, set()
        return [held.row() for held in changed]

    async def obey(self, line: str) -> list[list[Any]]:
        """Carries out one command, and returns its answer."""
        command, *arguments = line.split()
        if command == "open":
            self._interval_s = float(arguments[1])
            self._wanted += int(arguments[0])
            await self.open(int(arguments[0]))
        elif command == "mark":
            for held in self._held:
                held.longest_silence = 0.0
            self.changed.update(self._held)
        elif command == "close":
            self._wanted = 0
            for held in self._held:
                held.end("closed")
        return self.report()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="where to connect: a VIP")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--replace",
        type=float,
        metavar="S",
        help="give up who is silent for S seconds; replace each that breaks",
    )
    options = parser.parse_args()
    allow_many_files()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    holder = Holder(options.address, options.port)
    if options.replace:
        asyncio.run_coroutine_threadsafe(holder.replace(options.replace), loop)
    answer(lambda line: asyncio.run_coroutine_threadsafe(holder.obey(line), loop).result())


if __name__ == "__main__":
    main()
