"""How `maglab top` draws a lab: two looks in, lines of text out. Pure.

Rates and shares are those between the looks. What does not fit is counted: "and 7 more".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .observe import ESTABLISHED
from .top_look import Look, MaglevLook

NEEDS = (80, 20)  # columns and rows
SORTS = ("name", "packets", "drops")
KEYS = "q quits   p pauses   s sorts   c counters"
STYLES = {
    "serving": "green", "up": "green", "draining": "yellow", "drained": "yellow", "not ready": "yellow",
    "no session": "yellow", "down": "bold red",
}  # fmt: skip
HEADING, TITLE = "bold", "reverse"
FEWEST_EVENTS = 3


@dataclass(frozen=True)
class Line:
    """A line of the picture; `style` is Rich's."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class MaglevRow:
    """A Maglev between two looks."""

    name: str
    state: str
    session: str
    share: float
    pps: float
    drops: int
    flows: int
    occupancy: float
    cpu: float
    memory_mb: float


@dataclass(frozen=True)
class EndpointRow:
    """An endpoint between two looks, as the Maglevs together see it."""

    name: str
    state: str
    healthy_to: str
    share: float
    pps: float
    cpu: float


def maglev_rows(before: Look, now: Look) -> list[MaglevRow]:
    """Returns a row for each Maglev; shares are of the packets that routers sent, so that the dead have one too."""
    sent = {name: _sent(now, name) - _sent(before, name) for name in now.maglevs}
    total = sum(sent.values())
    return [
        MaglevRow(
            name,
            _state(look, _session(now, name)),
            _session(now, name),
            sent[name] / total if total > 0 else 0.0,
            _rate(before, now, look.forwarded, before.maglevs[name].forwarded),
            look.drops,
            look.flows,
            look.occupancy,
            _cpu(before, now, name),
            now.usage[name].memory_bytes / 1e6,
        )
        for name, look in now.maglevs.items()
    ]


def _sent(look: Look, maglev: str) -> int:
    return sum(router.packets_to.get(maglev, 0) for router in look.routers.values())


def _session(look: Look, maglev: str) -> str:
    """Returns how the worst of a Maglev's sessions is."""
    states = [router.sessions[maglev] for router in look.routers.values() if maglev in router.sessions]
    return next((state for state in states if state != ESTABLISHED), ESTABLISHED if states else "-")


def _state(look: MaglevLook, session: str) -> str:
    if not look.answers:
        return "down"
    if look.draining:
        return "draining"
    return "not ready" if not look.ready else "serving" if session in (ESTABLISHED, "-") else "no session"


def _rate(before: Look, now: Look, after: int, earlier: int) -> float:
    """Returns events a second; a counter that began anew counts from 0."""
    grown = after - earlier if after >= earlier else after
    return grown / max(now.at - before.at, 1e-3)


def _cpu(before: Look, now: Look, name: str) -> float:
    """Returns the share of a processor that a node's processes took."""
    return max(0.0, now.usage[name].cpu_s - before.usage[name].cpu_s) / max(now.at - before.at, 1e-3)


def endpoint_rows(before: Look, now: Look) -> list[EndpointRow]:
    """Returns a row for each endpoint."""
    rates = {}
    for node in now.wiring.nodes:
        if node.role == "endpoint":
            rates[node.name] = sum(
                _rate(before, now, look.by_endpoint.get(address, 0), before.maglevs[name].by_endpoint.get(address, 0))
                for name, look in now.maglevs.items()
                if look.answers
                for address in node.addresses
            )
    total = sum(rates.values())
    return [
        EndpointRow(name, *_health(now, name), rate / total if total else 0.0, rate, _cpu(before, now, name))
        for name, rate in rates.items()
    ]


def _health(now: Look, endpoint: str) -> tuple[str, str]:
    """Returns an endpoint's state, and to which of the Maglevs that answer it is healthy."""
    addresses = set(now.wiring.node(endpoint).addresses)
    answering = [name for name, look in now.maglevs.items() if look.answers]
    healthy = [name for name in answering if addresses & now.maglevs[name].healthy]
    if any(addresses & now.maglevs[name].drained for name in answering):
        return "drained", "drained"
    if healthy == answering:
        return ("up", "all") if answering else ("?", "nobody to ask")
    return (
        ("down", "none")
        if not healthy
        else ("up", f"not to {' '.join(each for each in answering if each not in healthy)}")
    )


def picture(before: Look, now: Look, width: int, height: int, sort: str = "name", paused: bool = False) -> list[Line]:
    """Returns the lines that fill a terminal of this size, or say that it is too small."""
    if width < NEEDS[0] or height < NEEDS[1]:
        return [Line(f"this terminal has {width}x{height}; maglab top needs {NEEDS[0]}x{NEEDS[1]}"[:width], "bold red")]
    routers = _router_lines(now)
    room = height - 3 - 2 - FEWEST_EVENTS - 1 - min(len(routers), 4) - 2  # title, keys, headings, gaps
    maglevs, endpoints = _sorted(maglev_rows(before, now), sort), _sorted(endpoint_rows(before, now), sort)
    for_maglevs = max(2, min(len(maglevs), room - min(len(endpoints), room // 2)))
    lines = [_title(now, maglevs, width, sort, paused), Line("")]
    lines += [_heading(MAGLEV), *_cut([_maglev_line(row) for row in maglevs], for_maglevs), Line("")]
    lines += [
        _heading(ENDPOINT),
        *_cut([_endpoint_line(row) for row in endpoints], max(2, room - for_maglevs)),
        Line(""),
    ]
    lines += [*_cut(routers, 4), Line("")]
    left = height - len(lines) - 1
    lines += [Line(text) for text in list(now.events)[-left:]] if left > 0 else []
    lines += [Line("")] * (height - 1 - len(lines))
    return [Line(line.text[:width], line.style) for line in [*lines, Line(KEYS.ljust(width), TITLE)]]


def _title(now: Look, rows: Sequence[MaglevRow], width: int, sort: str, paused: bool) -> Line:
    minutes, seconds = divmod(int(now.uptime_s), 60)
    pps = sum(row.pps for row in rows)
    words = f"{now.lab}   up {minutes}:{seconds:02}   {pps:,.0f} packets/s   by {sort}{'   PAUSED' if paused else ''}"
    return Line(words.ljust(width), TITLE)


def _sorted(rows: list, sort: str) -> list:  # type: ignore[type-arg]
    key: Mapping[str, Callable[..., float]] = {
        "packets": lambda row: -row.pps, "drops": lambda row: -getattr(row, "drops", 0)
    }  # fmt: skip
    return sorted(rows, key=key[sort]) if sort in key else rows


def _cut(lines: Sequence[Line], most: int) -> list[Line]:
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], Line(f"and {len(lines) - most + 1} more")]


MAGLEV = "Maglev  state      BGP          share packets/s  drops  flows  table  CPU   MB"
ENDPOINT = "endpoint  state     share packets/s  CPU  healthy to"


def _heading(text: str) -> Line:
    return Line(text, HEADING)


def _maglev_line(row: MaglevRow) -> Line:
    text = (
        f"{row.name:8}{row.state:11}{row.session:12}{row.share:6.0%}{row.pps:10,.0f}{row.drops:7,}{row.flows:7,}"
        f"{row.occupancy:7.1%}{row.cpu:5.0%}{row.memory_mb:5,.0f}"
    )
    return Line(text, STYLES.get(row.state, ""))


def _endpoint_line(row: EndpointRow) -> Line:
    text = f"{row.name:10}{row.state:9}{row.share:6.0%}{row.pps:10,.0f}{row.cpu:5.0%}  {row.healthy_to}"
    style = "yellow" if row.state == "up" and row.healthy_to != "all" else STYLES.get(row.state, "")
    return Line(text, style)


def _router_lines(now: Look) -> list[Line]:
    """Returns a line for each way of a router: the VIPs that go to the same Maglevs share one."""
    names = {address: node.name for node in now.wiring.nodes for address in node.addresses}
    lines = []
    for router, view in now.routers.items():
        ways: dict[tuple[str, ...], list[str]] = {}
        for vip, hops in view.ecmp.items():
            ways.setdefault(tuple(names.get(hop, hop) for hop in hops), []).append(vip)
        if not ways:
            lines.append(Line(f"{router}: no VIP has a route", STYLES["down"]))
        lines += [Line(f"{router}: {_few(vips)} -> {' '.join(hops)}") for hops, vips in ways.items()]
    return lines


def _few(vips: Sequence[str]) -> str:
    return ", ".join(vips) if len(vips) <= 3 else f"{', '.join(vips[:2])} and {len(vips) - 2} more"
