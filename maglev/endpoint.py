"""The endpoint's side of Maglev: takes clients' packets out of GRE, so that any server on the VIP can answer them.

It serves nothing itself. While it runs, this machine holds the VIPs whose pools list it, and follows the configuration
as forwarders do: what comes is held at once, what leaves is kept while connections are open there (`lingering`). When
it leaves, it puts everything back as it was.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from . import config as configuration
from . import metrics
from .config import Config
from .config_diff import diff, in_words
from .direct_return import troubles_of
from .engine import decapsulation, delivery, machine, survey
from .engine.control import ControlServer, Routes
from .engine.exposition import Exposition, MetricsServer
from .engine.held_vips import HeldVips, connected_addresses
from .engine.watch import FileWatch
from .errors import ConfigError, MaglevError, PlatformError, Problem
from .flow import Address, pack_address
from .lingering import Holding, Network

LOOK_S = 0.5  # between looks at the connections of VIPs that have left


def endpoint_addresses(config: Config) -> tuple[Address, ...]:
    """Returns the addresses of all endpoints of a configuration, each once, in order."""
    members = {member.address for vip in config.vips for member in config.vip_members(vip)}
    return tuple(sorted(members, key=pack_address))


def vips_of(config: Config, endpoints: Collection[Address]) -> tuple[Network, ...]:
    """Returns the VIPs, addresses and prefixes, that a machine with these endpoint addresses answers for, in order."""
    networks = {
        vip.network
        for vip in config.placed_vips
        if any(member.address in endpoints for member in config.vip_members(vip))
    }
    return tuple(sorted(networks, key=_place))


def _place(network: Network) -> tuple[bytes, int]:
    return pack_address(network.network_address), network.prefixlen


class EndpointDaemon:
    """One endpoint, which holds what the configuration in a file says now."""

    def __init__(self, file: Path, address: Address | None) -> None:
        """Reads the configuration; MaglevError if it is not sound, or lists this machine in no VIP's pools.

        Without an `address` it is every endpoint of the configuration whose address this machine has: one of each
        family, say.
        """
        self._file, self._only = file, address
        self._watch = FileWatch(file, self._reload_logged, self._watch_ended)  # first, so that it misses nothing
        self._config = configuration.load(file)
        self._own = self._find_own(self._config)
        self._holding = Holding(frozenset(vips_of(self._config, self._own)))
        if not self._holding.vips:
            listed = ", ".join(map(str, endpoint_addresses(self._config)))
            raise MaglevError(f"no VIP's pool lists {address}; endpoints are {listed}")
        self._refusal = ""
        self._configuring = threading.RLock()  # one change at a time
        self._something_left = threading.Event()
        self._started = time.monotonic()
        self._delivery: delivery.Delivery
        self._held: HeldVips

    def run(self, control: Path, decapsulate_with: str) -> None:
        """Serves until a signal ends it. `decapsulate_with` is auto, kernel or tun.

        PlatformError if the machine lacks what is needed.
        """
        machine.leave_on_signals()
        machine.die_with_any_thread()
        signal.signal(signal.SIGHUP, lambda number, frame: threading.Thread(target=self._reload_logged).start())
        with contextlib.ExitStack() as undo:
            maglevs = _maglevs_of(self._config)
            self._delivery = delivery.open_delivery(maglevs, decapsulate_with, undo)
            self._held = HeldVips(undo)
            self._hold(self._config, self._holding)
            exposition = Exposition(lambda: metrics.of_endpoint(self._view()))
            routes: Routes = {"GET /status": self.status, "GET /metrics": exposition.text, "POST /reload": self.reload}
            server = ControlServer(control, routes)
            undo.callback(server.close)
            exposed = MetricsServer(self._own, self._config.metrics.port, exposition)
            undo.callback(exposed.close)
            threading.Thread(target=self._let_go_in_time, name="lingering", daemon=True).start()
            self._watch.start()
            server.start()
            exposed.start()
            self._delivery.run()

    def _watch_ended(self, error: OSError) -> None:
        self._say(f"{self._file} is not watched: {error.strerror or error}; reload it by SIGHUP")

    def _say(self, text: str) -> None:
        machine.say(f"endpoint {self._own[0]}: {text}")

    def _find_own(self, config: Config) -> tuple[Address, ...]:
        return (self._only,) if self._only else machine.own_among(endpoint_addresses(config), "endpoint")

    def status(self) -> dict[str, Any]:
        """Returns what this endpoint is, holds, and has let in or kept out."""
        reasons = self._delivery.reasons() or {}
        return {
            "endpoint": str(self._own[0]),
            "addresses": [str(each) for each in self._own],
            "ready": True,
            "config": {"file": str(self._file), "refused": self._refusal},
            "vips": _shown(self._holding.vips),
            "vips_that_left": _shown(self._holding.left),
            "troubles": self._troubles(),
            "decapsulation": self._delivery.name,
            "delivered": decapsulation.delivered_by_devices(),
            "drops": {reason.value: count for reason, count in sorted(reasons.items())},
        }

    def _troubles(self) -> list[str]:
        """Returns what keeps this machine from answering as one of its VIPs, whoever has set it so."""
        vips = {vip.network_address for vip in self._holding.vips if vip.num_addresses == 1}
        return sorted(troubles_of(survey.machine(), vips, self._own[0]))

    def _view(self) -> metrics.EndpointView:
        return metrics.EndpointView(
            about={"address": str(self._own[0]), "decapsulation": self._delivery.name},
            uptime_s=time.monotonic() - self._started,
            received=self._delivery.received(),
            reasons=self._delivery.reasons(),
        )

    # The configuration

    def reload(self) -> dict[str, Any]:
        """Reads the file again and holds what it says; MaglevError, which has been logged, changes nothing."""
        with self._configuring:
            try:
                changed = self._commit(configuration.load(self._file))
            except MaglevError as error:
                self._refusal = str(error)
                self._say(f"configuration kept as it was: {error}")
                raise
            self._refusal = ""
            return {"changed": changed, "vips": _shown(self._holding.vips)}

    def _reload_logged(self) -> None:
        with contextlib.suppress(MaglevError):
            self.reload()

    def _commit(self, fresh: Config) -> list[str]:
        """Takes over a configuration, or raises MaglevError and changes nothing; returns what changed, in words."""
        if fresh.metrics != self._config.metrics:
            port = Problem(str(self._file), "metrics.port", fresh.metrics.port, "the value it had until a restart")
            raise ConfigError([port])
        own = self._own
        with contextlib.suppress(PlatformError):  # no endpoint any more: it holds nothing until it is one again
            own = self._find_own(fresh)
        before, holding = self._holding, self._holding.changed(vips_of(fresh, own), time.monotonic())
        self._hold(fresh, holding)
        changed = in_words(diff(self._config, fresh))
        self._config, self._own, self._holding = fresh, own, holding
        if holding.left:
            self._something_left.set()
        if holding.vips != before.vips:
            self._say(f"configuration from {self._file}: {_told(before.vips, holding.vips)}")
        return changed

    def _hold(self, config: Config, holding: Holding) -> None:
        """Makes the machine hold what is to be held; PlatformError changes nothing."""
        self._delivery.follow(_maglevs_of(config), holding.held)
        self._held.follow(holding.held)

    def _let_go_in_time(self) -> None:
        """Lets go of VIPs that have left, one after another, when they are due."""
        while self._something_left.wait():
            time.sleep(LOOK_S)
            with self._configuring:
                self._let_go(connected_addresses(), time.monotonic())

    def _let_go(self, connected: Collection[Address], now: float) -> None:
        before, most_s = self._holding, self._config.endpoint.vip_linger_s
        holding = before.let_go(lambda vip: any(address in vip for address in connected), now, most_s)
        if holding != before:
            self._hold(self._config, holding)
            self._holding = holding
            self._say(f"let go of {', '.join(_shown(before.left.keys() - holding.left.keys()))}")
        if not holding.left:
            self._something_left.clear()


def _maglevs_of(config: Config) -> list[Address]:
    return [each for maglev in config.maglevs for each in maglev.addresses]


def _told(before: frozenset[Network], after: frozenset[Network]) -> str:
    """Returns in words which VIPs have come and which have left."""
    come, left = _shown(after - before), _shown(before - after)
    parts = [f"holds {', '.join(come)} too"] if come else []
    parts += [f"{', '.join(left)} left, kept while connections are open there"] if left else []
    return "; ".join(parts)


def _shown(vips: Collection[Network]) -> list[str]:
    """Returns VIPs as a person writes them, in order: an address without its length."""
    return [str(vip.network_address) if vip.num_addresses == 1 else str(vip) for vip in sorted(vips, key=_place)]
