"""What can be done to nodes: the part of `Lab` that kills, drains, upgrades, and pushes configurations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import yaml

import maglev.config
from maglev.engine.control import request

from .. import observe
from ..errors import WrongUse
from ..nodes import CONFIG, ConfiguredNode, LabNode, write_config
from ..timeline import Timeline
from ..waiting import wait_until
from . import darkness
from .fault import Fault

CONVERGE_TIMEOUT_S = 20.0
DRAIN_QUIET_S = 0.1  # a drained Maglev's share is gone when no router sends to it, and for so long nothing has come
COMMIT_TIMEOUT_S = 10.0  # for a forwarder to take over a configuration


class NodeFaults:
    """What `Lab` does to nodes."""

    timeline: Timeline
    document: dict[str, Any]
    config: maglev.config.Config

    def kill(self, name: str, daemon: str | None = None) -> Fault:
        """Kills a Maglev's or an endpoint's processes with SIGKILL, or only the daemon that is named."""
        node = self.node(name, "maglev", "endpoint")
        if daemon is not None and daemon not in node.daemons:
            raise WrongUse(f"{name} runs no {daemon!r}; it runs {', '.join(node.daemons) or 'nothing'}")
        self._lose(node)
        node.stop_daemons(names=[daemon] if daemon else ())
        return self._fault("kill", name, lambda: self.revive(name))

    def power_off(self, name: str) -> Fault:
        """Takes a Maglev's or an endpoint's power: no goodbye, its packets just vanish."""
        node = self.node(name, "maglev", "endpoint")
        self._lose(node)
        darkness.power_off(node)
        node.is_dark = True
        return self._fault("power off", name, lambda: self.revive(name))

    def revive(self, name: str) -> None:
        """Starts a node again that was killed or powered off."""
        node = self.node(name, "maglev", "endpoint")
        if name not in self._down:
            raise WrongUse(f"{name} is running; down are {', '.join(sorted(self._down)) or 'none'}")
        node.stop_daemons()
        if node.is_dark:
            darkness.light(node)
            node.is_dark = False
        node.start_daemons()
        self._down.discard(name)
        if node.role == "maglev":
            self._drained.discard(name)  # a forwarder that starts is not draining
        self._changed()

    def drain(self, name: str) -> Fault:
        """Takes a node out of service without hurting a connection.

        An endpoint gets weight 0: it keeps the connections it has, and no new one. A Maglev withdraws its VIPs; when
        its share of the packets has gone elsewhere, its daemons are stopped.
        """
        node = self.node(name, "maglev", "endpoint")
        if name in self._down | self._drained:
            raise WrongUse(f"{name} is down or drained already")
        if node.role == "endpoint":
            self._set_weight(node, 0)
            self._drained.add(name)
            return self._fault("drain", name, lambda: self.undrain(name))
        self._drained.add(name)
        self._changed()
        request(node.control, "POST", "/drain")
        self._wait_withdrawn(node)
        wait = f"wait_s={CONVERGE_TIMEOUT_S:g}&quiet_s={DRAIN_QUIET_S:g}"
        request(node.control, "POST", f"/drain?{wait}", 2 * CONVERGE_TIMEOUT_S)
        self._down.add(name)
        node.stop_daemons()
        return self._fault("drain", name, lambda: self.revive(name))

    def undrain(self, name: str) -> None:
        """Gives a drained endpoint its weight back."""
        node = self.node(name, "endpoint")
        if name not in self._drained:
            raise WrongUse(f"{name} is not drained; drained are {', '.join(sorted(self._drained)) or 'none'}")
        self._set_weight(node, 1)
        self._drained.discard(name)

    def upgrade(self, maglevs: Sequence[str] = (), forwarder: Mapping[str, Any] | None = None) -> None:
        """Restarts Maglevs (all, unless some are named), one at a time: drained, restarted, back in service, the next.

        `forwarder` has options that a running forwarder cannot take over, such as `{"engine": "socket"}`: each takes
        them up when it starts again. Until then it refuses them, and serves on.
        """
        for name in maglevs:
            self.node(name, "maglev")
        if forwarder:
            self._write({**self.document, "forwarder": {**self.document["forwarder"], **forwarder}})
        for name in maglevs or self.maglevs:
            with self.drain(name):
                pass
            self.wait_converged()

    def push(self, maglev: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Has one Maglev serve a configuration that no file says, until its file counts again; returns what changed.

        ControlError, with everything that is wrong, if the Maglev refuses it.
        """
        node = self.node(maglev, "maglev")
        body = yaml.safe_dump(dict(document), sort_keys=False).encode()
        answer = request(node.control, "PUT", "/config", COMMIT_TIMEOUT_S, body)
        self._changed()
        return answer

    def restore(self) -> None:
        """Undoes every fault that still is, closes connections that still are held, and waits until all is well."""
        for held in self._connections:
            held.abandon()
        self._connections.clear()
        for node in self.net.hosts:
            if node.name in self._down:
                self.revive(node.name)
            elif node.name in self._drained:
                self.undrain(node.name)
        self.wait_converged()

    def reload(self) -> None:
        """Writes the configuration, and waits until every running endpoint and forwarder has taken it over."""
        self._write(self.document)
        for node in self._of_role("endpoint") + self._of_role("maglev"):
            if node.name not in self._down:
                request(node.control, "POST", "/reload", COMMIT_TIMEOUT_S)

    def _write(self, document: dict[str, Any]) -> None:
        self.config = self._validated(document)
        self.document = document
        write_config(self.directory / CONFIG, document)
        self._changed()

    def _set_weight(self, node: LabNode, weight: float) -> None:
        for pool in self.document["pools"].values():
            for endpoint in pool.get("endpoints", []):
                if str(ip_address(endpoint["address"])) in node.addresses.values():
                    endpoint["weight"] = weight
        self.reload()

    def _fault(self, what: str, where: str, undo: Callable[[], None], **detail: Any) -> Fault:
        """Returns a fault that has just happened."""
        return Fault(self.timeline, what, where, undo, **detail)

    def _lose(self, node: LabNode) -> None:
        if node.name in self._down:
            raise WrongUse(f"{node.name} is down already")
        self._down.add(node.name)
        self._changed()

    def _changed(self) -> None:
        self._changed_at = time.monotonic()

    def _wait_withdrawn(self, node: ConfiguredNode) -> None:
        """Waits until no router sends to a Maglev any more."""

        def missing() -> str:
            hops = {hop for router in self._of_role("router") for each in observe.ecmp(router).values() for hop in each}
            return "" if hops.isdisjoint(node.addresses.values()) else f"a router still sends to {node.name}"

        wait_until(missing, CONVERGE_TIMEOUT_S, f"draining {node.name}")
