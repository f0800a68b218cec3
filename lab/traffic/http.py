"""Requests and responses with real clients: wrk and ab as fast as they can, curl for each request by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import WrongUse
from .handle import Report, check_number
from .http_results import HttpResult, merged, parse_ab, parse_curl, parse_wrk
from .program import Program, ProgramHandle, failed

PARSERS: dict[str, Callable[[str], HttpResult]] = {"wrk": parse_wrk, "ab": parse_ab, "curl": parse_curl}
DEFAULT_SECONDS, DEFAULT_REQUESTS = 5.0, 100
MOST_REQUESTS, MOST_SECONDS, MOST_CONNECTIONS = 1_000_000, 3600.0, 10_000
CLOSE = "Connection: close"  # each request gets a connection, and so a flow, of its own


@dataclass(frozen=True)
class Requests:
    """What one client is to do; `seconds` are the longest that it may take, `requests` 0 for as many as it can."""

    program: str
    url: str
    connections: int
    seconds: float
    requests: int
    keep_alive: bool
    timeout_s: float

    def command(self) -> list[str]:
        """Returns the command line."""
        return {"wrk": self._wrk, "ab": self._ab, "curl": self._curl}[self.program]()

    def _wrk(self) -> list[str]:
        numbers = ["-t", "1", "-c", str(self.connections), "-d", f"{math.ceil(self.seconds)}s"]
        header = [] if self.keep_alive else ["-H", CLOSE]
        return ["wrk", "--latency", *numbers, "--timeout", f"{math.ceil(self.timeout_s)}s", *header, self.url]

    def _ab(self) -> list[str]:
        number = self.requests or MOST_REQUESTS  # after -t, which would set another
        numbers = ["-c", str(self.connections), "-t", str(math.ceil(self.seconds)), "-n", str(number)]
        return [
            "ab",
            "-q",
            "-r",
            "-l",
            *numbers,
            "-s",
            str(math.ceil(self.timeout_s)),
            *["-k"] * self.keep_alive,
            self.url,
        ]

    def _curl(self) -> list[str]:
        header = [] if self.keep_alive else ["--header", CLOSE]
        limits = ["--max-time", str(self.timeout_s), "--parallel", "--parallel-max", str(self.connections)]
        quiet = ["--silent", "--output", "/dev/null", "--write-out", "%{json}\\n"]
        joint = "&" if "?" in self.url else "?"
        return ["curl", *quiet, *limits, *header, f"{self.url}{joint}number=[1-{self.requests}]"]


def plan(
    program: str, seconds: float | None, requests: int | None, connections: int, timeout_s: float
) -> tuple[float, int]:
    """Returns the longest that a program may take, and its requests; WrongUse for what it cannot do.

    wrk goes by time, curl by requests, ab by both, whichever is over first.
    """
    if program not in PARSERS:
        raise WrongUse(f"program={program!r} is not allowed; allowed: {', '.join(PARSERS)}")
    if program == "wrk" and requests is not None:
        raise WrongUse(
            "wrk cannot be told how many requests to send, only for how long: give seconds, or use ab or curl"
        )
    if program == "curl" and seconds is not None:
        raise WrongUse(
            "curl cannot be told for how long to send, only how many requests: give requests, or use wrk or ab"
        )
    if program == "curl":
        requests = DEFAULT_REQUESTS if requests is None else requests
        seconds = min(MOST_SECONDS, timeout_s * math.ceil(requests / connections))
    seconds = DEFAULT_SECONDS if seconds is None and requests is None else seconds
    check_number("seconds", MOST_SECONDS if seconds is None else seconds, 1, MOST_SECONDS)
    check_number("requests", 1 if requests is None else requests, 1, MOST_REQUESTS, whole=True)
    return (MOST_SECONDS if seconds is None else seconds), requests or 0


@dataclass(frozen=True)
class HttpReport(Report):
    """Counts requests; `received` are answers with status 2xx or 3xx. wrk and ab say nothing before they end."""

    bytes: int  # that were read
    errors: Mapping[str, int]  # what went wrong: how often
    times_ms: Mapping[str, float]  # of a request: 50%, 90%, 99%, max; of several clients those of the slowest

    def __str__(self) -> str:
        errors = ", ".join(f"{count} {what}" for what, count in self.errors.items()) or "none"
        times = ", ".join(f"{name} {value:.1f} ms" for name, value in self.times_ms.items())
        rate = self.received / self.seconds if self.seconds else 0.0
        return (
            f"{self.sent} requests in {self.seconds:.1f} s, {self.received} answered well ({rate:.0f} a second); "
            f"errors: {errors}; {times}"
        )


class HttpHandle(ProgramHandle[HttpReport]):
    """Clients that send requests."""

    program = "curl"
    asked: int | None = None

    def _read(self, programs: Sequence[Program], seconds: float, finished: bool) -> HttpReport:
        result = merged(each for program in programs if (each := self._result(program)) is not None)
        took_s = result.seconds or seconds
        counts = (self.asked, result.sent, result.received, took_s, finished)
        return HttpReport(*counts, result.bytes, result.errors, result.times_ms)

    def _result(self, program: Program) -> HttpResult | None:
        """Returns what a program has done; None while it does not say."""
        is_over = program.is_over  # before what it has printed is read
        try:
            return PARSERS[program.name](program.output)
        except ValueError:
            if is_over:
                raise failed(program) from None
            return None
