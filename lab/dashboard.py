"""How a demo looks to a person: live tables on a terminal, plain lines elsewhere, and the verdict at the end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .connections import Connections
from .demo import Event, Result
from .errors import LabError
from .laboratory import Lab
from .observe import Snapshot

REFRESH_S = 0.5
STATE_STYLES = {"up": "green", "down": "bold red", "off": "bold red", "drained": "yellow", "frozen": "bold blue"}


class PlainShow:
    """Prints a line for everything that happens."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._began = time.monotonic()
        self._line(title)

    def __enter__(self) -> PlainShow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _line(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:6.1f} s  {text}", highlight=False, soft_wrap=True)

    def step(self, text: str) -> None:
        self._line(text)

    def watch(self, lab: Lab, connections: Connections) -> None:
        counts = Counter(connection.endpoint for connection in connections.all())
        self._line(
            f"up in {lab.start_s:.1f} s; connections: {', '.join(f'{n} on {s}' for s, n in sorted(counts.items()))}"
        )

    def happened(self, event: Event) -> None:
        self._line(f"  {sentence(event)}")


class LiveShow:
    """Redraws the whole lab twice a second while it runs."""

    def __init__(self, console: Console, title: str) -> None:
        self._title, self._step = title, "starting"
        self._began = time.monotonic()
        self._events: list[Event] = []
        self._picture: RenderableType = Text("")
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> LiveShow:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_watching()
        self._live.stop()

    def step(self, text: str) -> None:
        self._step = text
        if text == "stopping":
            self._stop_watching()

    def watch(self, lab: Lab, connections: Connections) -> None:
        self._watcher = threading.Thread(target=self._keep_watching, args=(lab, connections), daemon=True)
        self._watcher.start()

    def happened(self, event: Event) -> None:
        self._events.append(event)

    def _stop_watching(self) -> None:
        self._over.set()
        if self._watcher is not None:
            self._watcher.join()

    def _keep_watching(self, lab: Lab, connections: Connections) -> None:
        packets = lab.snapshot().ecmp_packets()
        while not self._over.wait(REFRESH_S):
            try:
                snapshot = lab.snapshot()
            except LabError:
                continue  # in the middle of a fault; the next look will see
            now = snapshot.ecmp_packets()
            self._picture = Group(
                maglev_table(lab, snapshot, {name: now[name] - packets[name] for name in now}),
                endpoint_table(lab, snapshot, connections),
            )
            packets = now

    def _render(self) -> RenderableType:
        headline = Text(f"{time.monotonic() - self._began:5.1f} s  {self._step}", style="bold")
        log = [Text(f"  {sentence(event)}", style="red" if event.broken else "") for event in self._events]
        return Panel(Group(headline, self._picture, *log), title=self._title)


def maglev_table(lab: Lab, snapshot: Snapshot, packets: dict[str, int]) -> Table:
    """Returns a table of the Maglevs; `packets` are what routers sent to each since the last look."""
    table = Table(expand=True)
    for heading in ("Maglev", "state", "BGP", "ECMP share", "connections", "sees healthy", "drops"):
        table.add_column(heading, justify="left" if heading in ("Maglev", "state", "BGP") else "right")
    total = sum(packets.values()) or 1
    for name, view in snapshot.maglevs.items():
        sessions = ", ".join(router.sessions.get(name, "-") for router in snapshot.routers.values())
        table.add_row(
            name,
            _state(lab, name),
            sessions,
            f"{packets[name] / total:.0%}",
            str(view.statistics["connections"]["active"]) if view else "-",
            _healthy(view.status["pools"]) if view else "-",
            str(sum(view.statistics["drops"].values())) if view else "-",
        )
    return table


def endpoint_table(lab: Lab, snapshot: Snapshot, connections: Connections) -> Table:
    """Returns a table of the endpoints and the connections that they hold."""
    held = connections.all()
    alive = Counter(connection.endpoint for connection in held if connection.fate == "alive")
    broken = Counter(connection.endpoint for connection in held if connection.is_broken)
    table = Table(expand=True)
    for heading in ("endpoint", "state", "healthy to", "connections", "share", "lost"):
        table.add_column(heading, justify="left" if heading in ("endpoint", "state") else "right")
    total = sum(alive.values()) or 1
    for name in lab.endpoints:
        seen_by = sum(_is_healthy_to(view.status["pools"], lab, name) for view in snapshot.maglevs.values() if view)
        serving = sum(view is not None for view in snapshot.maglevs.values())
        share = f"{alive[name] / total:.0%}"
        table.add_row(name, _state(lab, name), f"{seen_by}/{serving}", str(alive[name]), share, str(broken[name]))
    return table


def _state(lab: Lab, name: str) -> Text:
    state = lab.state_of(name)
    return Text(state, style=STATE_STYLES[state])


def _healthy(pools: dict[str, dict[str, list[str]]]) -> str:
    healthy = {address for pool in pools.values() for address in pool["healthy"]}
    everyone = healthy | {address for pool in pools.values() for address in pool["unhealthy"]}
    return f"{len(healthy)}/{len(everyone)}"


def _is_healthy_to(pools: dict[str, dict[str, list[str]]], lab: Lab, endpoint: str) -> bool:
    own = set(lab.node(endpoint).addresses.values())
    return any(own & set(pool["healthy"]) for pool in pools.values())


def sentence(event: Event) -> str:
    """Returns an event's result in one line."""
    died = f"; {event.expected_broken} had to die with their endpoint" if event.expected_broken else ""
    note = f"; {event.note}" if event.note else ""
    return (
        f"{event.event}: {event.broken} broken that should have lived{died}; "
        f"converged in {event.converged_s:.2f} s, longest silence {event.longest_silence_ms:.0f} ms{note}"
    )


def print_result(console: Console, result: Result) -> None:
    """Prints the table, event by event, and what it adds up to."""
    title = (
        f"{result.connections} connections, {result.hash} hashing, connection table {on_off(result.connection_table)}"
    )
    table = Table(title=title)
    table.add_column("event", no_wrap=True)
    for heading in ("broken,\nshould have lived", "had to die", "converged", "longest silence", "living after"):
        table.add_column(heading, justify="right")
    for event in result.events:
        broken = Text(str(event.broken), style="bold red" if event.broken else "green")
        converged, silence = f"{event.converged_s:.2f} s", f"{event.longest_silence_ms:.0f} ms"
        table.add_row(event.event, broken, str(event.expected_broken), converged, silence, str(event.living))
    console.print(table)
    console.print(f"ECMP shares        {_percent(result.ecmp_shares)}", highlight=False)
    console.print(f"endpoint shares    {_percent(result.endpoint_shares)}", highlight=False)
    console.print(
        f"return packets through Maglevs: {result.return_packets_through_maglevs}; up in {result.start_s:.1f} s, "
        f"{result.total_s:.0f} s in all",
        highlight=False,
    )
    console.print(Text(verdict(result), style="bold green" if result.ok else "bold red"))


def verdict(result: Result) -> str:
    """Returns what a demo has shown, in a sentence or two."""
    doomed = sum(event.expected_broken for event in result.events)
    if result.ok:
        return f"OK: no connection broke that should have lived; {doomed} died with their endpoint, as they had to."
    if not result.broken:
        return f"WRONG: {result.return_packets_through_maglevs} return packets crossed a Maglev; there must be none."
    share = result.broken / max(1, result.connections - doomed)
    by_endpoints = sum(event.broken for event in result.events if event.changes == "endpoints")
    return (
        f"BROKEN: {result.broken} connections that should have lived ({share:.0%} of them), {by_endpoints} of these by "
        "changes of endpoints: each moves flows to endpoints that do not know them, and nothing remembers where they "
        "were."
    )


def _percent(shares: object) -> str:
    assert isinstance(shares, dict)
    return "  ".join(f"{name} {share:.1%}" for name, share in shares.items())


def on_off(switch: bool) -> str:
    """Returns a switch as it is written on the command line."""
    return "on" if switch else "off"
