"""What wrk, ab and curl print, read: pure. The programs are wrk 4.1, ab 2.3 (Apache 2.4) and curl 7.88."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .times import Times

UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
UNITS_BYTES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}  # wrk counts in powers of two


@dataclass(frozen=True)
class HttpResult:
    """What one client program says that it did."""

    sent: int  # requests, answered or not
    received: int  # answers with status 2xx or 3xx
    seconds: float
    bytes: int  # that were read
    errors: Mapping[str, int] = field(default_factory=dict)  # what went wrong: how often
    times_ms: Mapping[str, float] = field(default_factory=dict)  # of a request: 50%, 90%, 99%, max


def parse_wrk(text: str) -> HttpResult:
    """Returns what `wrk --latency` says; ValueError if it says nothing of the kind, as when it could not connect."""
    totals = _found(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h), ([\d.]+)(B|KB|MB|GB) read", text)
    requests, seconds = int(totals[1]), float(totals[2]) * UNITS_S[totals[3]]
    bad = _number(r"Non-2xx or 3xx responses: (\d+)", text)
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    numbers = map(int, socket_errors.groups()) if socket_errors else iter((0, 0, 0, 0))
    errors = dict(zip(("connect", "read", "write", "timeout"), numbers, strict=True))
    lost = errors["connect"] + errors["read"] + errors["write"]  # after a timeout the answer may still come
    times = {
        name: _wrk_ms(value, unit) for name, value, unit in re.findall(r"(50|90|99)%\s+([\d.]+)(us|ms|s|m|h)", text)
    }
    longest = re.search(r"Latency\s+\S+\s+\S+\s+([\d.]+)(us|ms|s|m|h)", text)
    named = {f"{name}%": value for name, value in times.items()}
    named |= {"max": _wrk_ms(*longest.groups())} if longest else {}
    kept = _some({**errors, "status": bad})
    size = round(float(totals[4]) * UNITS_BYTES[totals[5]])
    return HttpResult(requests + lost, requests - bad, seconds, size, kept, named if requests else {})


def _wrk_ms(value: str, unit: str) -> float:
    return round(float(value) * UNITS_S[unit] * 1e3, 3)


def parse_ab(text: str) -> HttpResult:
    """Returns what `ab -r -l` says; ValueError if it says nothing of the kind."""
    complete = int(_found(r"Complete requests:\s+(\d+)", text)[1])
    seconds = float(_found(r"Time taken for tests:\s+([\d.]+) seconds", text)[1])
    bad = _number(r"Non-2xx responses:\s+(\d+)", text)
    kinds = re.search(r"Connect: (\d+), Receive: (\d+), Length: (\d+), Exceptions: (\d+)", text)
    numbers = [int(number) for number in kinds.groups()] if kinds else [0, 0, 0, 0]
    errors = dict(zip(("connect", "read", "length", "exception"), numbers, strict=True))
    failed = errors["connect"] + max(errors["read"], errors["exception"])  # a failed request may count as both
    served = dict(re.findall(r"^\s*(50|90|99|100)%\s+(\d+)", text, re.MULTILINE))
    times = {"max" if name == "100" else f"{name}%": float(value) for name, value in served.items()}
    received = max(0, complete - bad - failed)
    size = _number(r"Total transferred:\s+(\d+) bytes", text)
    return HttpResult(complete, received, seconds, size, _some({**errors, "status": bad}), times if received else {})


def parse_curl(text: str) -> HttpResult:
    """Returns what `curl --write-out '%{json}\\n'` says of each transfer; one whose line is not whole is left out.

    Seconds are not said: 0.
    """
    errors: Counter[str] = Counter()
    times, sent, received, size = Times(), 0, 0, 0
    for transfer in _json_lines(text):
        sent += 1
        size += int(transfer["size_download"])
        if transfer["exitcode"]:
            why = transfer["errormsg"] or f"exit code {transfer['exitcode']}"
            errors[re.sub(r" after \d+ (ms|milliseconds)", "", why)] += 1
        elif not 200 <= transfer["http_code"] < 400:
            errors["status"] += 1
        else:
            received += 1
            times.add(transfer["time_total"])
    return HttpResult(sent, received, 0.0, size, dict(errors), times.quantiles_ms())


def _json_lines(text: str) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue


def merged(results: Iterable[HttpResult]) -> HttpResult:
    """Returns the results of several clients as one: of quantiles the worst, since they do not add up."""
    listed = list(results)
    errors: Counter[str] = Counter()
    times: dict[str, float] = {}
    for result in listed:
        errors.update(result.errors)
        times |= {name: max(value, times.get(name, 0.0)) for name, value in result.times_ms.items()}
    total: Callable[[str], int] = lambda name: sum(getattr(result, name) for result in listed)  # noqa: E731
    seconds = max((result.seconds for result in listed), default=0.0)
    return HttpResult(total("sent"), total("received"), seconds, total("bytes"), dict(errors), times)


def _found(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(text.strip().rpartition("\n")[2] or "it said nothing")
    return found


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
