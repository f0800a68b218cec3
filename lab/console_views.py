"""What the console shows of a lab: the commands that look, and change nothing but what is asked for by name."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maglev.engine.control import request

from . import commands, graph, pcap
from .connections import Connections
from .decode import interest
from .errors import LabError, NotInTime, WrongUse
from .trace import shells_of
from .verdict import Verdict

if TYPE_CHECKING:
    from .laboratory import Lab

REFRESH_S = 0.5
VERIFY_TIMEOUT_S = 10.0
TABLE_TIMEOUT_S = 10.0


class Views:
    """The commands of `Console` that look."""

    lab: Lab
    _handles: list[Any]

    if TYPE_CHECKING:

        def say(self, text: object) -> None: ...
        def isatty(self) -> bool: ...

    # Faults

    def do_faults(self, line: str) -> None:
        """Lists the faults that are open, oldest first: faults"""
        found = list(map(str, self.lab.faults))
        self.say("\n".join(found) if found else "none is open")

    def do_undo(self, line: str) -> None:
        """Undoes the newest fault that is open, or all of them: undo [all]"""
        if line.strip() not in ("", "all"):
            raise WrongUse("usage: undo [all]; faults lists those that are open")
        open_faults = self.lab.faults[::-1] if line.strip() else self.lab.faults[-1:]
        if not open_faults:
            raise WrongUse("no fault is open")
        for fault in open_faults:
            fault.undo()
            self.say(f"undone: {fault}")

    def do_wait(self, line: str) -> None:
        """Waits until routers and Maglevs agree with what was done to the lab: wait"""
        self.say(f"converged {self.lab.wait_converged():.2f} s after the last change")

    # Traffic

    def do_conns(self, line: str) -> None:
        """Shows the fates of the connections, live until Ctrl-C: conns [seconds=5]"""
        held = [handle for handle in self._handles if isinstance(handle, Connections)]
        if not held:
            raise WrongUse("no connections are held; connections 100 opens some")
        seconds = _options(line, seconds=float).get("seconds")
        if not self.isatty() and seconds is None:
            self.say("\n".join(each.report() for each in held))
            return
        self._live(lambda: "\n".join(each.report() for each in held), seconds)

    def _live(self, look: Any, seconds: float | None) -> None:
        from rich.console import Console as Screen
        from rich.live import Live

        give_up = time.monotonic() + seconds if seconds is not None else float("inf")
        try:
            with Live(look(), console=Screen(highlight=False), auto_refresh=False) as live:
                while time.monotonic() < give_up:
                    time.sleep(min(REFRESH_S, max(0.0, give_up - time.monotonic())))
                    live.update(look(), refresh=True)
        except KeyboardInterrupt:
            if not self.isatty():
                raise

    def do_traffic(self, line: str) -> None:
        """Says how all traffic that was begun here goes: traffic"""
        self.say("\n".join(f"{number} {self.told(each)}" for number, each in enumerate(self._handles, 1)) or "none")

    def do_stop(self, line: str) -> None:
        """Ends traffic, all of it or one by its number in `traffic`: stop [NUMBER]"""
        chosen = self._handles
        if line.strip():
            if not line.strip().isdigit() or not 1 <= int(line) <= len(chosen):
                raise WrongUse(f"there is no traffic {line.strip()!r}; traffic lists it, by numbers")
            chosen = [chosen[int(line) - 1]]
        if not chosen:
            raise WrongUse("no traffic was begun here")
        for each in chosen:
            each.close() if isinstance(each, Connections) else each.stop()
            self.say(self.told(each))
        self._handles = [each for each in self._handles if each not in chosen]

    @staticmethod
    def told(handle: Any) -> str:
        """Returns how some traffic goes."""
        report = handle.report()
        return report if isinstance(report, str) else f"{handle}: {report}"

    # The lab

    def do_status(self, line: str) -> None:
        """Lists the nodes: their roles, addresses, states: status"""
        rows = [("node", "role", "state", "address")]
        for node in self.lab.wiring.nodes:
            state = self.lab.state_of(node.name) if node.role in ("maglev", "endpoint") else "up"
            rows.append((node.name, node.role, state, " ".join(node.addresses)))
        self.say(aligned(rows))

    def do_watch(self, line: str) -> None:
        """Shows the whole lab, live, as maglab top does: watch; q leaves it"""
        from . import top

        if self.isatty():
            top.run(self.lab.site)
        else:
            self.say(top.once(self.lab.site))

    def do_verify(self, line: str) -> None:
        """Judges the lab as it is: converged, Maglevs alike, answers straight to clients, connections alive: verify"""
        verdicts = [self.lab.timeline.judged(verdict) for verdict in self._verdicts()]
        self.say("\n".join(map(str, verdicts)))
        if not all(verdicts):
            raise LabError(f"{sum(not verdict for verdict in verdicts)} of {len(verdicts)} claims do not hold")

    def _verdicts(self) -> Iterator[Verdict]:
        from . import verify

        yield _converged(self.lab)
        snapshot = self.lab.snapshot()
        yield verify.maglevs_choose_alike(snapshot)
        if any(snapshot.ecmp_packets().values()):
            yield verify.direct_server_return(snapshot)
        for held in (each for each in self._handles if isinstance(each, Connections)):
            yield verify.connections_persist(held.all())

    def do_routes(self, line: str) -> None:
        """Shows where routers send VIPs, and how their sessions are: routes [ROUTER]"""
        wanted = line.strip()
        if wanted:
            self.lab.node(wanted, "router")
        names = {address: node.name for node in self.lab.wiring.nodes for address in node.addresses}
        for name, view in self.lab.snapshot().routers.items():
            if wanted not in ("", name):
                continue
            total = sum(view.packets_to.values()) or 1
            rows = [(f"{name}:", vip, *(names.get(hop, hop) for hop in hops)) for vip, hops in view.ecmp.items()]
            rows += [(f"{name}:", "session", maglev, state) for maglev, state in view.sessions.items()]
            rows += [
                (f"{name}:", "packets", maglev, f"{sent} ({sent / total:.0%})")
                for maglev, sent in view.packets_to.items()
            ]
            self.say(aligned(rows) if rows else f"{name}: no VIP has a route")

    def do_table(self, line: str) -> None:
        """Shows a Maglev's lookup tables, of all endpoints or one: table MAGLEV [ENDPOINT or ADDRESS]"""
        words = line.split()
        if not 1 <= len(words) <= 2:
            raise WrongUse("usage: table MAGLEV [ENDPOINT or ADDRESS]")
        maglev = self.lab.node(words[0], "maglev")
        wanted = self._addresses(words[1]) if len(words) == 2 else set()
        tables = request(maglev.control, "GET", "/tables", TABLE_TIMEOUT_S)
        active = request(maglev.control, "GET", "/statistics")["connections"]["active_by_endpoint"]
        rows: list[tuple[str, ...]] = [("pool", "endpoint", "address", "slots", "share", "active flows")]
        for pool, table in tables.items():
            rows += self._table_rows(pool, table["slots"], active, wanted)
        if len(rows) == 1:
            raise WrongUse(f"{words[0]} has no endpoint {words[1] if wanted else ''} in its lookup tables")
        self.say(aligned(rows))

    def _table_rows(
        self, pool: str, slots: Sequence[str], active: dict[str, int], wanted: set[str]
    ) -> Iterator[tuple[str, ...]]:
        names = {address: node.name for node in self.lab.wiring.nodes for address in node.addresses}
        for address, count in sorted(Counter(slots).items()):
            if not wanted or address in wanted:
                share = f"{count / len(slots):.2%}"
                yield pool, names.get(address, "?"), address, f"{count:,}", share, str(active.get(address, 0))

    def _addresses(self, name: str) -> set[str]:
        there = {node.name: set(node.addresses) for node in self.lab.wiring.nodes if node.role == "endpoint"}
        return there.get(name) or {name}

    def do_trace(self, line: str) -> None:
        """Follows a packet that says "trace me": trace CLIENT [VIP] [source_port=…] [count=1] [fragmented=on]"""
        words = commands.split(line)
        options = _options(line, source_port=int, count=int, fragmented=commands.SWITCHES.get)
        names = [word for word in words if "=" not in word]
        if not 1 <= len(names) <= 2:
            raise WrongUse("usage: trace CLIENT [VIP] [source_port=…] [count=1] [fragmented=on]")
        for told in self.lab.trace(*names, **options).lines():
            self.say(told)

    def do_pcap(self, line: str) -> None:
        """Shows what crosses a link, live until Ctrl-C: pcap LINK [flow=10.0.1.2:40001] [only=on] [seconds=5]"""
        options = _options(line, flow=str, only=commands.SWITCHES.get, seconds=float)
        names = [word for word in commands.split(line) if "=" not in word]
        if len(names) != 1:
            raise WrongUse("usage: pcap LINK [flow=10.0.1.2:40001] [only=on] [seconds=5]")
        if not self.isatty() and "seconds" not in options:
            raise WrongUse("in a script, pcap needs to be told for how long: pcap LINK seconds=5")
        wanted = interest(options["flow"]) if "flow" in options else None
        site = self.lab.site
        with pcap.Live(site, self.lab.wiring, shells_of(site), names[0]) as live:
            if said := pcap.not_seen(live.watched):
                self.say(said)
            try:
                pcap.show(live.until(options.get("seconds")), self.say, wanted, bool(options.get("only")))
            except KeyboardInterrupt:
                if not self.isatty():
                    raise

    def do_capture(self, line: str) -> None:
        """Keeps what crosses links, or all of them, in a directory until the lab ends: capture DIRECTORY [LINK…]"""
        words = commands.split(line)
        if not words:
            raise WrongUse("usage: capture DIRECTORY [LINK…]")
        self.lab.capture(Path(words[0]), *words[1:])
        self.say(f"capturing; when the lab has ended: maglab pcap {words[0]}")

    def do_timeline(self, line: str) -> None:
        """Lists what has happened so far: timeline"""
        self.say(self.lab.timeline if self.lab.timeline.events else "nothing has happened")

    def do_graph(self, line: str) -> None:
        """Draws the lab: graph"""
        self.say(graph.draw(self.lab.wiring, "text").rstrip("\n"))


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Returns rows of words in columns."""
    rows = list(rows)
    widths: dict[int, int] = {}
    for row in rows:
        for at, word in enumerate(row):
            widths[at] = max(widths.get(at, 0), len(word))
    return "\n".join("  ".join(word.ljust(widths[at]) for at, word in enumerate(row)).rstrip() for row in rows)


def _options(line: str, **kinds: Any) -> dict[str, Any]:
    """Returns the `name=value` words of a line; WrongUse for a name or a value that is not allowed."""
    found = {}
    for word in commands.split(line):
        name, equals, text = word.partition("=")
        if not equals:
            continue
        if name not in kinds:
            raise WrongUse(f"there is no option {name!r}; there are {', '.join(kinds)}")
        try:
            found[name] = kinds[name](text)
        except ValueError:
            raise WrongUse(f"{name}={text!r} is not allowed; allowed: a number") from None
    return found


def _converged(lab: Lab) -> Verdict:
    claim, expected = "routers and Maglevs agree with what was done to the lab", f"within {VERIFY_TIMEOUT_S:g} s"
    try:
        return Verdict(claim, True, expected, f"{lab.wait_converged(VERIFY_TIMEOUT_S):.2f} s")
    except NotInTime as error:
        return Verdict(claim, False, expected, str(error), look_at="status, routes")
