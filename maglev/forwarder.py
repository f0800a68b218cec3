"""The forwarder: data plane, config manager and health checks of one Maglev in one process (Maglev §2.2, §3).

The main thread moves packets. Health checks, netlink and the control socket have threads of their own; what they
change reaches the packets by exchanging the forwarder's map of VIPs, whole.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import config as configuration
from . import health
from .config import Config, Member
from .engine import machine
from .engine.choice import open_engine
from .engine.contract import Engine, Options, Table
from .engine.control import ControlServer
from .engine.neighbours import Neighbours
from .engine.probes import Prober
from .errors import ConfigError, PlatformError, Problem
from .flow import pack_address, unpack_address
from .selection import MapBuilder, connection_capacity, fragment_limits
from .vips import EMPTY

ACTIVE_WITHIN_S = 1.0  # a flow that was used in the last second counts as active


class ForwarderDaemon:
    """Ties configuration, health and next hops to the decisions of a `Forwarder`."""

    def __init__(self, file: Path, config: Config, name: str) -> None:
        self._file, self._config, self._name = file, config, name
        self._maglev = config.maglev(name)
        self._engine: Engine
        self._vips = EMPTY
        self._builder = MapBuilder()
        self._neighbours = Neighbours(on_change=lambda next_hops: self._engine.follow(next_hops))
        self._prober = Prober(on_change=lambda states: self._rebuild())
        self._rebuilding = threading.Lock()
        self._draining = False
        self._generation = 0
        self._started = time.monotonic()

    def run(self, control: Path) -> None:
        """Serves until a signal ends it; PlatformError if the machine lacks what is needed."""
        machine.leave_on_signals()
        machine.die_with_any_thread()
        signal.signal(signal.SIGHUP, lambda number, frame: threading.Thread(target=self._reload_logged).start())
        with contextlib.ExitStack() as undo:
            self._engine = self._open_engine()
            undo.callback(self._engine.close)
            machine.keep_kernel_from_answering_gre(undo)
            server = ControlServer(control, self._routes())
            undo.callback(server.close)
            self._neighbours.start()
            self._adopt(self._config)
            self._prober.start()
            server.start()
            self._engine.run()

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
                options.busy_poll, fragment_limits(self._config), options.icmp_errors_per_s,
            ),
        )  # fmt: skip
        for reason in engine.passed_over:
            machine.say(f"{self._name}: passed over {reason}")
        machine.say(f"{self._name}: engine {engine.name} on {interface}: {engine.detail}")
        return engine

    def _routes(self) -> dict[str, Any]:
        return {
            "GET /status": self.status,
            "GET /statistics": self.statistics,
            "GET /tables": self.tables,
            "POST /reload": self.reload,
            "POST /drain": lambda: self._set_draining(True),
            "POST /undrain": lambda: self._set_draining(False),
        }

    def status(self) -> dict[str, Any]:
        """Returns the document by which the controller decides, and everything that a person asks first."""
        vips = self._config.vips_of(self._maglev.shard)
        return {
            "maglev": self._name,
            "addresses": [str(address) for address in self._maglev.addresses],
            "shard": self._maglev.shard,
            "ready": self._prober.complete,
            "draining": self._draining,
            "generation": self._generation,
            "uptime_s": round(time.monotonic() - self._started, 3),
            "engine": self._engine.name,
            "engine_detail": self._engine.detail,
            "engines_passed_over": list(self._engine.passed_over),
            "hash": self._config.forwarder.hash,
            "vips": sorted({vip.shown for vip in vips}),
            "peers": [str(unpack_address(peer)) for peer in self._vips.cluster.owners.members]
            if self._vips.cluster
            else [],
            "pools": {pool: self._pool_status(pool) for pool in dict.fromkeys(vip.pool for vip in vips)},
        }

    def _pool_status(self, pool: str) -> dict[str, Any]:
        members = self._config.pool_members(pool)
        backends = self._vips.pools.get(pool)
        usable = {unpack_address(address) for address in backends.usable} if backends else set()
        return {
            "healthy": [str(member.address) for member in members if member.address in usable],
            "unhealthy": [str(member.address) for member in members if member.address not in usable],
            "drained": [str(member.address) for member in members if member.weight == 0],
            "table_digest": backends.digest if backends else None,
        }

    def statistics(self) -> dict[str, Any]:
        """Returns counters since the start, in packets, and the connection tables' occupancy, in flows."""
        counted, now = self._engine.statistics(), time.monotonic()
        return {
            "forwarded": counted.forwarded.total(),
            "drops": counted.drops(),
            "redirected": [
                {"maglev": str(unpack_address(maglev)), "packets": packets}
                for maglev, packets in sorted(counted.redirected.items())
            ],
            "vips": [
                {"vip": vip, "endpoint": str(unpack_address(endpoint)), "packets": packets}
                for (vip, endpoint), packets in sorted(counted.forwarded.items())
            ],
            "connections": _occupancy(self._engine.tables, now),
        }

    def tables(self) -> dict[str, Any]:
        """Returns every pool's lookup table: the backend of each slot, null where there is none."""
        pools = self._vips.pools
        return {
            pool: {"slots": [str(unpack_address(backend)) if backend else None for backend in backends.slots]}
            for pool, backends in pools.items()
        }

    def reload(self) -> dict[str, Any]:
        """Reads the configuration again and commits it; ConfigError changes nothing (Maglev §2.2)."""
        fresh = configuration.load(self._file)
        self._check_same_machine(fresh)
        self._adopt(fresh)
        return {"generation": self._generation}

    def _reload_logged(self) -> None:
        try:
            self.reload()
        except ConfigError as error:
            machine.say(f"configuration kept as it was: {error}")

    def _check_same_machine(self, fresh: Config) -> None:
        """Refuses what a running forwarder cannot take over: who it is, and the sizes of what it has allocated."""
        old, new = self._config.forwarder, fresh.forwarder
        problems = [
            Problem(str(self._file), f"forwarder.{field}", getattr(new, field), "the value it had until a restart")
            for field in ("engine", "connection_table", "threads", "busy_poll", "fragments", "icmp_errors_per_s")
            if getattr(old, field) != getattr(new, field)
        ]
        if self._maglev not in fresh.maglevs:
            addresses = " and ".join(map(str, self._maglev.addresses))
            expected = f"{self._name} with {addresses} and shard {self._maglev.shard}"
            problems.append(Problem(str(self._file), "maglevs", [m.name for m in fresh.maglevs], expected))
        if problems:
            raise ConfigError(problems)

    def _adopt(self, config: Config) -> None:
        self._config = config
        members = {m.address for vip in config.vips_of(self._maglev.shard) for m in config.pool_members(vip.pool)}
        peers = {peer.address for peer in config.peers(self._maglev.shard)}
        self._neighbours.set_targets(pack_address(address) for address in members | peers)
        checks = health.checks_of(config, self._maglev.shard)
        self._prober.set_checks(tuple(dict.fromkeys(checks + health.peer_checks_of(config, self._maglev))))
        self._rebuild()

    def _rebuild(self) -> None:
        """Builds the map of VIPs aside, and swaps it in."""
        with self._rebuilding:
            self._vips = self._builder.build(self._config, self._maglev.shard, self._is_healthy)
            self._engine.adopt(self._vips)
            self._generation += 1

    def _is_healthy(self, member: Member) -> bool:
        return member.address == self._maglev.address or health.is_healthy(self._prober.states(), member) is True

    def _set_draining(self, draining: bool) -> dict[str, Any]:
        self._draining = draining
        return {"draining": draining}


def _occupancy(tables: Sequence[Table], now: float) -> dict[str, Any]:
    """Returns what connection tables hold, and how much they could, in flows, all together."""
    active: Counter[bytes] = Counter()
    for table in tables:
        active.update(table.by_backend(now, ACTIVE_WITHIN_S))
    return {
        "entries": sum(map(len, tables)),
        "capacity": sum(table.capacity for table in tables),
        "overflows": sum(table.overflows for table in tables),
        "active": sum(active.values()),
        "active_by_endpoint": {str(unpack_address(backend)): flows for backend, flows in active.items()},
    }
