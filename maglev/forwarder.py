"""The forwarder: data plane, config manager and health checks of one Maglev in one process (Maglev §2.2, §3).

The main thread moves packets. Health checks, netlink, the control socket and what watches the file have threads of
their own; what they change reaches the packets by exchanging the forwarder's map of VIPs, whole.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import config as configuration
from . import config_restart, documents, draining, health, metrics
from .config import Config, Member
from .config_diff import Change, diff, in_words
from .engine import machine
from .engine.choice import open_engine
from .engine.contract import Engine, Options
from .engine.control import ControlServer, Request, Routes, Takers
from .engine.exposition import Exposition, MetricsServer
from .engine.neighbours import Neighbours
from .engine.probes import Prober
from .engine.vip_path import VipPath
from .engine.watch import FileWatch, fingerprint
from .errors import ConfigError, MaglevError, PlatformError, Problem
from .flow import pack_address, unpack_address
from .pulse import Pulse
from .selection import (
    MapBuilder,
    carried_over,
    connection_capacity,
    fragment_limits,
    most_per_source,
    serving_pool,
)
from .vips import EMPTY

POLL_S = 0.02
NEXT_HOP_TIMEOUT_S = 2.0  # that a change waits for the way to new endpoints; the kernel asks anew after 1 s
PUSHED = "PUT /config"  # what a configuration from the control socket is called, where others have a file
MOST_LOGGED = 10  # phrases of one change


class ForwarderDaemon:
    """Ties configuration, health and next hops to the decisions of a `Forwarder`."""

    def __init__(self, file: Path, name: str) -> None:
        """Reads the configuration; MaglevError if it is not sound, or has no Maglev of that name."""
        self._file, self._name = file, name
        self._watch = FileWatch(file, self._file_changed, self._watch_ended)  # first, so that it misses nothing
        self._last_read = fingerprint(file)
        self._config = configuration.load(file)
        self._maglev = self._config.maglev(name)
        self._source, self._refusal = str(file), ""
        self._configuring = threading.RLock()  # one change of configuration at a time
        self._engine: Engine
        self._vips = EMPTY
        self._builder = MapBuilder()
        self._targets: frozenset[bytes] = frozenset()  # all to whom packets may be sent, 16 bytes each
        self._reached: Collection[bytes] = ()  # those whose next hop the engine knows
        self._carried: frozenset[Member] = frozenset()
        self._neighbours = Neighbours(on_change=self._follow)
        self._vip_path = VipPath(self._maglev.addresses)
        self._prober = Prober(lambda states: self._rebuild(), path=self._vip_path, seed=name)
        self._plan: health.Plan
        self._rebuilding = threading.RLock()
        self._draining = False
        self._generation = 0
        self._started = time.monotonic()
        self._pulse = Pulse()
        self._exposition = Exposition(lambda: metrics.of_forwarder(self._view()))

    def run(self, control: Path) -> None:
        """Serves until a signal ends it; PlatformError if the machine lacks what is needed."""
        machine.leave_on_signals()
        machine.die_with_any_thread()
        signal.signal(signal.SIGHUP, lambda number, frame: threading.Thread(target=self._reload_logged).start())
        with contextlib.ExitStack() as undo:
            self._engine = self._open_engine()
            undo.callback(self._engine.close)
            machine.keep_kernel_from_answering_gre(undo)
            server = ControlServer(control, self._routes(), self._takers())
            undo.callback(server.close)
            undo.callback(self._vip_path.close)
            self._neighbours.start()
            self._open_vip_path(self._config)
            exposed = MetricsServer(self._maglev.addresses, self._config.metrics.port, self._exposition)
            undo.callback(exposed.close)
            self._adopt(self._config)
            undo.callback(self._prober.stop)
            self._prober.start()
            self._watch.start()
            server.start()
            exposed.start()
            self._engine.run()

    def _watch_ended(self, error: OSError) -> None:
        machine.say(f"{self._name}: {self._file} is not watched: {error.strerror or error}; reload it by SIGHUP")

    def _open_engine(self) -> Engine:
        here = machine.own_addresses()
        own = tuple(map(pack_address, self._maglev.addresses))
        for packed in own:
            if packed not in here:
                raise PlatformError(f"{self._name}'s address {unpack_address(packed)} is not on this machine")
        interface = here[own[0]]
        options, table = self._config.forwarder, self._config.forwarder.connection_table
        engine = open_engine(
            options.engine,
            Options(
                interface, own, connection_capacity(self._config), table.idle_timeout_s, options.threads,
                options.busy_poll, table.huge_pages, fragment_limits(self._config), options.icmp_errors_per_s,
                self._name, options.trace_reports_per_s, most_per_source(self._config),
            ),
        )  # fmt: skip
        for reason in engine.passed_over:
            machine.say(f"{self._name}: passed over {reason}")
        machine.say(f"{self._name}: engine {engine.name} on {interface}: {engine.detail}")
        return engine

    def _routes(self) -> Routes:
        return {
            "GET /status": self.status,
            "GET /readiness": self.readiness,
            "GET /statistics": self.statistics,
            "GET /tables": self.tables,
            "GET /config": lambda: self._config.model_dump(mode="json", exclude_none=True),
            "GET /health": self.health,
            "GET /metrics": self._exposition.text,
            "POST /reload": self.reload,
            "POST /undrain": self._undrain,
        }

    def _takers(self) -> Takers:
        return {"PUT /config": self.push, "POST /drain": self.drain}

    def readiness(self) -> dict[str, Any]:
        """Returns the document by which the controller decides: it asks often, so this is short."""
        shard = self._maglev.shard
        stuck = self._pulse.stuck(self._engine.beats, time.monotonic())
        return {
            "ready": self._prober.complete and not stuck,
            "stuck_packet_threads": stuck,
            "draining": self._draining,
            "vips": sorted({vip.shown for vip in self._config.vips_of(shard) if shard in vip.announced_by}),
        }

    def status(self) -> dict[str, Any]:
        """Returns everything that a person asks first."""
        vips = self._config.vips_of(self._maglev.shard)
        return {
            "maglev": self._name,
            "addresses": [str(address) for address in self._maglev.addresses],
            "shard": self._maglev.shard,
            **self.readiness(),
            "generation": self._generation,
            "config": {"file": str(self._file), "served": self._source, "refused": self._refusal},
            "uptime_s": round(time.monotonic() - self._started, 3),
            "engine": self._engine.name,
            "engine_detail": self._engine.detail,
            "engines_passed_over": list(self._engine.passed_over),
            "hash": self._config.forwarder.hash,
            **documents.living_maglevs(self._vips.cluster),
            "pools": documents.pools(self._config, self._maglev.shard, self._vips),
            "served_by": {vip.name: serving_pool(self._config, vip, self._is_healthy) for vip in vips},
        }

    def statistics(self) -> dict[str, Any]:
        """Returns counters since the start, in packets, and the connection tables' occupancy, in flows."""
        return documents.statistics(self._engine.statistics(), self._engine.tables, time.monotonic())

    def _view(self) -> metrics.ForwarderView:
        config, engine, shard = self._config, self._engine, self._maglev.shard
        return metrics.ForwarderView(
            about={
                "maglev": self._name,
                "shard": shard,
                "engine": engine.name,
                "hash": config.forwarder.hash,
            },
            ready=self._prober.complete,
            draining=self._draining,
            generation=self._generation,
            uptime_s=time.monotonic() - self._started,
            statistics=engine.statistics(),
            pool_of=metrics.pool_names(config, shard),
            pools=metrics.count_pools(config, shard, self._vips.pools),
            tables=[
                metrics.TableCounts(len(t), t.capacity, t.hits, t.misses, t.overflows, t.expired, t.over_share)
                for t in engine.tables
            ],
            checks=self._prober.states(),
            batch_sizes=engine.batch_sizes,
        )

    def tables(self) -> dict[str, Any]:
        """Returns every pool's lookup table: the backend of each slot, null where there is none."""
        return documents.lookup_tables(self._vips)

    def health(self) -> dict[str, Any]:
        """Returns what is known of every health check, and why its latest probe failed."""
        return {"checks": health.report(self._prober.states(), self._prober.last_errors(), time.monotonic())}

    def reload(self) -> dict[str, Any]:
        """Reads the file again and commits what it says; ConfigError changes nothing (Maglev §2.2)."""
        with self._configuring:
            self._last_read = fingerprint(self._file)
            try:
                answer = self._commit(lambda: configuration.load(self._file), str(self._file))
            except MaglevError as error:
                self._refusal = str(error)
                raise
            self._refusal = ""
            return answer

    def push(self, request: Request) -> dict[str, Any]:
        """Commits the configuration that came with a request; the file stays as it is, and counts when it changes."""
        with self._configuring:
            return self._commit(lambda: configuration.parse(_text(request.body), PUSHED), PUSHED)

    def _file_changed(self) -> None:
        """Reloads, unless somebody has had this very file read meanwhile: what was pushed since then counts."""
        with self._configuring:
            if fingerprint(self._file) != self._last_read:
                self._reload_logged()

    def _reload_logged(self) -> None:
        with contextlib.suppress(MaglevError):  # it has been logged
            self.reload()

    def _commit(self, read: Callable[[], Config], source: str) -> dict[str, Any]:
        """Takes over a configuration whole, or raises MaglevError and changes nothing; returns what changed."""
        try:
            fresh = read()
            if problems := list(config_restart.obstacles(self._config, fresh, self._maglev, source)):
                raise ConfigError(problems)
            self._open_vip_path(fresh)
        except MaglevError as error:
            machine.say(f"{self._name}: configuration kept as it was: {error}")
            raise
        changes = diff(self._config, fresh)
        if changes:
            self._change_to(fresh)
            machine.say(f"{self._name}: configuration from {source}: {_summary(changes)}")
        self._source = source
        return {
            "generation": self._generation,
            "changed": in_words(changes),
            "changes": [change.document() for change in changes],
        }

    def _open_vip_path(self, config: Config) -> None:
        """Makes what checks through the data path need, if there are any; PlatformError if this machine cannot."""
        if vips := {check.vip for check in health.Plan(config, self._maglev).checks if check.vip}:
            self._vip_path.open(vips)

    def _change_to(self, fresh: Config) -> None:
        """Adopts a configuration when the way to its new endpoints is known, or has been looked for long enough."""
        coming = self._targets_of(fresh) - self._targets
        self._neighbours.set_targets(self._targets | coming)
        give_up = time.monotonic() + NEXT_HOP_TIMEOUT_S
        while not coming <= set(self._reached) and time.monotonic() < give_up:
            time.sleep(POLL_S)
        self._adopt(fresh)

    def _adopt(self, config: Config) -> None:
        plan = health.Plan(config, self._maglev)
        with self._rebuilding:
            self._carried = carried_over(self._vips, self._config, config, self._maglev.shard)
            self._config, self._plan = config, plan
            self._prober.set_checks(plan.checks, doubting=plan.of_endpoints)
            self._rebuild()
        self._targets = self._targets_of(config)  # now that no packet is sent to the others any more
        self._neighbours.set_targets(self._targets)

    def _targets_of(self, config: Config) -> frozenset[bytes]:
        """Returns all to whom a configuration may have packets sent: endpoints, and the other Maglevs."""
        members = {m.address for vip in config.vips_of(self._maglev.shard) for m in config.vip_members(vip)}
        peers = {peer.address for ally in config.allies(self._maglev.shard) for peer in config.peers(ally)}
        return frozenset(pack_address(address) for address in members | peers)

    def _follow(self, next_hops: Mapping[bytes, bytes]) -> None:
        self._engine.follow(next_hops)
        self._reached = next_hops.keys()

    def _rebuild(self) -> None:
        """Builds the map of VIPs aside, and swaps it in."""
        with self._rebuilding:
            self._vips = self._builder.build(self._config, self._maglev.shard, self._is_healthy)
            self._engine.adopt(self._vips)
            self._generation += 1

    def _is_healthy(self, member: Member) -> bool:
        if member.address == self._maglev.address:
            return True
        verdict = health.is_healthy(self._prober.states(), self._plan.checks_of(member))
        return member in self._carried if verdict is None else verdict

    def drain(self, request: Request) -> dict[str, Any]:
        """Asks the controller to withdraw, and waits as the request says; MaglevError if packets still come then."""
        wait = draining.parse(request.query)
        self._draining = True
        if wait.wait_s:
            self._wait_for_silence(wait)
        return {"draining": True}

    def _wait_for_silence(self, wait: draining.Wait) -> None:
        began = time.monotonic()
        silence = draining.Silence(self._packets(), began)
        while silence.lasts_s(self._packets(), time.monotonic()) < wait.quiet_s:
            if not self._draining:
                raise MaglevError("undrained while it was waited for")
            if time.monotonic() - began > wait.wait_s:
                raise MaglevError(f"packets still come after {wait.wait_s:g} s of draining, which goes on")
            time.sleep(POLL_S)

    def _packets(self) -> int:
        """Returns how many packets to VIPs have come so far."""
        counted = self._engine.statistics()
        return counted.forwarded.total() + sum(counted.drops().values())

    def _undrain(self) -> dict[str, Any]:
        self._draining = False
        return {"draining": False}


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        bad = Problem(PUSHED, f"byte {error.start}", error.object[error.start : error.end], "text in UTF-8")
        raise ConfigError([bad]) from None


def _summary(changes: Sequence[Change]) -> str:
    phrases = in_words(changes)
    more = [f"and {len(phrases) - MOST_LOGGED} more"] if len(phrases) > MOST_LOGGED else []
    return "; ".join([*phrases[:MOST_LOGGED], *more])
