"""Holds TCP connections open from a client, and knows the fate of each: runs on a client node, a process a client.

Every connection sends a numbered message, waits for the endpoint's name and the same number, rests, and goes on.
Commands come as lines on standard input, answers go as JSON lines to standard output:

    open N       opens N more connections, and answers when each is open or has failed
    report       the fate of every connection so far
    mark         begins a new measurement of the longest silence
    close        closes those that live, and answers with the last report

A connection's fate is `alive`, or how it ended: `refused`, `reset`, `garbled` (an answer that was not the question's,
or from another endpoint), `stalled` (no answer for `--stall` seconds), `closed` (by us).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import sys
import time
from typing import Any

OPEN_AT_ONCE = 64
CONNECT_TIMEOUT_S = 5.0


class Held:
    """One connection and what is known of it. Times are monotonic seconds."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.fate = "opening"
        self.endpoint = ""
        self.messages = 0
        self.last_answer = time.monotonic()
        self.longest_silence = 0.0
        self.writer: asyncio.StreamWriter | None = None

    async def open(self, address: str, port: int) -> asyncio.StreamReader | None:
        """Connects and learns who answers; returns None if nobody did."""
        try:
            opening = asyncio.open_connection(address, port)
            reader, self.writer = await asyncio.wait_for(opening, CONNECT_TIMEOUT_S)
            await asyncio.wait_for(self.exchange(reader), CONNECT_TIMEOUT_S)
        except (TimeoutError, OSError, ValueError):
            self.fate = "refused"
            return None
        self.fate = "alive"
        return reader

    async def talk(self, reader: asyncio.StreamReader, interval_s: float) -> None:
        """Exchanges messages until the connection ends."""
        try:
            while self.fate == "alive":
                await asyncio.sleep(interval_s)
                await self.exchange(reader)
        except OSError:
            self._end("reset")
        except ValueError:
            self._end("garbled")

    async def exchange(self, reader: asyncio.StreamReader) -> None:
        """Sends one numbered message and checks the answer; ConnectionError at the end, ValueError if it is wrong."""
        assert self.writer is not None
        self.messages += 1
        self.writer.write(b"%d\n" % self.messages)
        words = (await reader.readline()).decode("ascii", "replace").split()
        if not words:
            raise ConnectionResetError
        self.endpoint = self.endpoint or words[0]
        if words != [self.endpoint, str(self.messages)]:
            raise ValueError(f"expected {self.endpoint} {self.messages}, got {' '.join(words)}")
        now = time.monotonic()
        self.longest_silence = max(self.longest_silence, now - self.last_answer)
        self.last_answer = now

    def _end(self, fate: str) -> None:
        if self.fate == "alive":
            self.fate = fate

    def close(self) -> None:
        """Closes the connection, if it lives."""
        self._end("closed")
        if self.writer is not None:
            self.writer.close()

    def report(self, now: float, stall_s: float) -> list[Any]:
        """Returns [number, fate, endpoint, messages, longest silence in ms, age of the last answer in ms]."""
        silence = now - self.last_answer
        if self.fate == "alive" and silence > stall_s:
            self.fate = "stalled"
        longest = max(self.longest_silence, silence) if self.fate in ("alive", "stalled") else self.longest_silence
        return [self.number, self.fate, self.endpoint, self.messages, round(longest * 1e3, 1), round(silence * 1e3, 1)]


class Holder:
    """All connections of this client."""

    def __init__(self, address: str, port: int, interval_s: float, stall_s: float) -> None:
        self._target = (address, port)
        self._interval_s, self._stall_s = interval_s, stall_s
        self._held: list[Held] = []
        self._talks: set[asyncio.Task[None]] = set()

    async def open(self, count: int) -> None:
        """Opens connections, some at once, and lets them talk."""
        gate = asyncio.Semaphore(OPEN_AT_ONCE)

        async def one(held: Held) -> None:
            async with gate:
                held.last_answer = time.monotonic()
                reader = await held.open(*self._target)
            if reader is not None:
                talk = asyncio.create_task(held.talk(reader, self._interval_s))
                self._talks.add(talk)
                talk.add_done_callback(self._talks.discard)

        fresh = [Held(len(self._held) + number) for number in range(count)]
        self._held += fresh
        await asyncio.gather(*map(one, fresh))

    def mark(self) -> None:
        """Forgets the silences so far."""
        for held in self._held:
            held.longest_silence = 0.0

    def report(self) -> list[list[Any]]:
        """Returns the fate of every connection."""
        now = time.monotonic()
        return [held.report(now, self._stall_s) for held in self._held]

    def close(self) -> None:
        """Closes all connections."""
        for held in self._held:
            held.close()

    async def obey(self, line: str) -> Any:
        """Carries out one command, and returns its answer."""
        command, *arguments = line.split()
        if command == "open":
            await self.open(int(arguments[0]))
        elif command == "mark":
            self.mark()
        elif command == "close":
            self.close()
        return self.report()


async def serve(holder: Holder) -> None:
    """Obeys commands from standard input until it ends."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().strip():
        print(json.dumps(await holder.obey(line), separators=(",", ":")), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="where to connect: a VIP")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between messages (default: 0.1)")
    parser.add_argument("--stall", type=float, default=10.0, help="seconds without an answer that end a connection")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Holder(options.address, options.port, options.interval, options.stall)))


if __name__ == "__main__":
    main()
