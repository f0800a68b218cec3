"""The name server: has clients come to the nearest site that has room (Maglev §2.1).

It probes every site's VIPs as a client would reach them: one that its routers have withdrawn is not handed out. How
busy a site is it hears from its Maglevs' metrics.
"""

from __future__ import annotations

import random
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from . import geo, name_answers, name_config
from .engine import machine
from .engine.control import ControlServer
from .engine.dns_server import DnsServer
from .engine.probes import Prober
from .errors import MaglevError
from .flow import Address
from .health import Check, State, Verdict
from .name_answers import Chosen, Subnet
from .name_config import NameConfig, Site, vips_of

FORWARDED, UPTIME = "maglev_forwarded_packets", "maglev_uptime_seconds"
SCRAPE_TIMEOUT_S = 1.0


class Counted(NamedTuple):
    """How many packets a Maglev has forwarded since its start, and how long that is ago, by its own clock, in seconds.

    Its own, since an answer may be on its way for as long as there is between two.
    """

    packets: float
    uptime_s: float


Ask = Callable[[Address, int], Counted | None]  # a Maglev and its port


def counted(maglev: Address, port: int) -> Counted | None:
    """Returns what a Maglev has counted, None if it does not say."""
    shown = f"[{maglev}]" if maglev.version == 6 else str(maglev)
    try:
        with urllib.request.urlopen(f"http://{shown}:{port}/metrics", timeout=SCRAPE_TIMEOUT_S) as answer:
            families = list(text_string_to_metric_families(answer.read().decode("utf-8", "replace")))
    except (OSError, ValueError, urllib.error.URLError):
        return None
    forwarded, uptimes_s = (
        [sample.value for family in families if family.name == name for sample in family.samples]
        for name in (FORWARDED, UPTIME)
    )
    return Counted(sum(forwarded), uptimes_s[0]) if uptimes_s else None


class Loads:
    """How busy the sites are, as shares of their capacities; kept up by a thread of its own."""

    def __init__(self, sites: Mapping[str, Site], interval_s: float, ask: Ask = counted) -> None:
        self._sites, self._interval_s, self._ask = sites, interval_s, ask
        self._last: dict[Address, Counted] = {}
        self.loads: Mapping[str, float] = {}
        self._pool = ThreadPoolExecutor(sum(len(site.maglevs) for site in sites.values()), "metrics")
        self._thread = threading.Thread(target=self._run, name="loads", daemon=True)

    def start(self) -> None:
        """Begins to ask."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            started = time.monotonic()
            self.ask()
            time.sleep(max(0.0, self._interval_s - (time.monotonic() - started)))

    def ask(self) -> None:
        """Asks all Maglevs once, at the same time."""
        ask = self._pool.submit
        asked = {
            name: [ask(self._rate, maglev, site.metrics_port) for maglev in site.maglevs]
            for name, site in self._sites.items()
        }
        rates = {name: [answer.result() for answer in each] for name, each in asked.items()}
        known = {name: [rate for rate in each if rate is not None] for name, each in rates.items()}
        self.loads = {name: sum(each) / self._sites[name].capacity_pps for name, each in known.items() if each}

    def _rate(self, maglev: Address, port: int) -> float | None:
        """Returns packets per second since the last time, None without two counts to tell it from."""
        before, now = self._last.pop(maglev, None), self._ask(maglev, port)
        if now is None:
            return None
        self._last[maglev] = now
        if before is None or now.uptime_s == before.uptime_s:
            return None
        if now.uptime_s < before.uptime_s:  # it has started again
            before = Counted(0, 0)
        return (now.packets - before.packets) / (now.uptime_s - before.uptime_s)


class Chooser:
    """Which addresses a name has for a client, now."""

    def __init__(
        self,
        config: NameConfig,
        serves: Callable[[str, Address], bool],
        loads: Callable[[], Mapping[str, float]],
        dice: random.Random,
    ) -> None:
        self._config, self._serves, self._loads, self._dice = config, serves, loads, dice

    def __call__(self, name: str, version: int, subnet: Subnet) -> Chosen | None:
        if name in self._config.hosts:
            own = tuple(address for address in self._config.hosts[name] if address.version == version)
            return Chosen(own, 0)
        service = self._config.names[name]
        listed = {site: vips_of(service, site, version) for site in service.vips}
        if not any(listed.values()):
            return Chosen((), 0)
        serving = {
            site: there for site, vips in listed.items() if (there := tuple(v for v in vips if self._serves(name, v)))
        }
        if not serving:
            return None
        order, scope = self._nearest_first(serving, subnet)
        site = geo.choose(geo.shares(order, self._loads(), self._config.load.limits), self._dice.random())
        return Chosen(serving[site], scope)

    def _nearest_first(self, sites: Collection[str], subnet: Subnet) -> tuple[Sequence[str], int]:
        """Returns the sites in their order for a client, and for which prefix of its address that holds."""
        located = self._config.located.of(subnet.address)
        if located is None:  # anywhere is as good
            return self._dice.sample(sorted(sites), len(sites)), 0
        return geo.by_distance(located.place, ((s, self._config.sites[s].place) for s in sites)), located.prefix_length


class NameServer:
    """All its parts together."""

    def __init__(self, config: NameConfig) -> None:
        self._config = config
        self._states: Mapping[Check, State] = {}
        self._checks = {
            (name, vip): Check(vip, service.health_check)
            for name, service in config.names.items()
            for vips in service.vips.values()
            for vip in vips
        }
        self._prober = Prober(lambda states: None, seed=config.zone)
        self._loads = Loads(config.sites, config.load.interval_s)
        self._chooser = Chooser(config, self.serves, lambda: self._loads.loads, random.Random())

    def start(self) -> None:
        """Begins to probe and to ask."""
        self._prober.set_checks(set(self._checks.values()))
        self._prober.start()
        self._loads.start()

    def serves(self, name: str, vip: Address) -> bool:
        """Says whether a VIP answers for a name."""
        return self._prober.states().get(self._checks[name, vip], State()).verdict is Verdict.HEALTHY

    def answer(self, query: bytes, source: Address, over_tcp: bool) -> bytes | None:
        """Returns the answer to a query."""
        return name_answers.reply_to(query, source, self._config.answers_for, self._chooser, over_tcp)

    def status(self) -> dict[str, Any]:
        """Returns what the sites do, and which VIPs answer."""
        return {
            "zone": self._config.zone,
            "ready": self._prober.complete,
            "loads": dict(self._loads.loads),
            "vips": {
                name: {str(vip): self.serves(name, vip) for vips in service.vips.values() for vip in vips}
                for name, service in self._config.names.items()
            },
        }


def run(file: Path, addresses: list[Address], control: Path) -> None:
    """Runs the name server on these addresses until a signal ends it; MaglevError if it cannot."""
    machine.leave_on_signals()
    machine.die_with_any_thread()
    config = name_config.load(file)
    if not addresses:
        raise MaglevError("no address to serve DNS on: name one with --address")
    server = NameServer(config)
    dns = DnsServer(addresses, config.port, server.answer)
    controlled = ControlServer(control, {"GET /status": partial(server.status)})
    try:
        server.start()
        dns.start()
        controlled.start()
        while True:
            signal.pause()
    finally:
        dns.close()
        controlled.close()
