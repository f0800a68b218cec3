"""What can be done by configuration: weights, pushes good and bad, health checks that are slow; and upgrades."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import yaml

from maglev.engine.control import ControlError, request

from ..errors import LabError, WrongUse
from ..nodes import LabNode
from ..waiting import wait_until
from .effect import Effect
from .fault import Fault
from .registry import Registry

COMMIT_TIMEOUT_S = 10.0  # for a forwarder to take over a configuration
PUSH, SLOW_CHECKS, MISCONFIGURE = "push", "slow checks", "misconfigure"
BAD = {"forwarder": {"table_size": 65536}}  # not a prime


class ConfigurationFaults(Registry):
    """What `Lab` does by configuration."""

    def push(self, maglev: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Has one Maglev serve a configuration that no file says, until its file counts again; returns what changed.

        ControlError, with everything that is wrong, if the Maglev refuses it. `reload` or `restore` has the file count.
        """
        node = self.node(maglev, "maglev")
        body = yaml.safe_dump(dict(document), sort_keys=False).encode()
        answer: dict[str, Any] = {}

        def put() -> None:
            answer.update(request(node.control, "PUT", "/config", COMMIT_TIMEOUT_S, body))

        effect = Effect(unsettled=frozenset({maglev}))
        fault = self._fault(PUSH, maglev, lambda: self._have_reload(node), do=put, effect=effect)
        fault.detail["changed"] = answer.get("changed")
        return answer

    def misconfigure(self, maglev: str | None = None, change: Mapping[str, Any] = BAD) -> Fault:
        """Gives Maglevs a bad configuration, which they must refuse: pushes it to one, or writes it to all their file.

        `change` takes the place of the top-level keys that it names. LabError if a Maglev took it after all. What was
        pushed is over at once; the file stays bad until the fault is undone, and a Maglev that starts meanwhile fails.
        """
        bad = {**self.document, **change}
        asked = [self.node(maglev, "maglev")] if maglev else self._answering_maglevs()
        body = yaml.safe_dump(bad, sort_keys=False).encode()
        refusals: dict[str, str] = {}

        def give() -> None:
            if maglev is None:
                self.write_config(bad)
            for node in asked:
                order = ("PUT", "/config", COMMIT_TIMEOUT_S, body) if maglev else ("POST", "/reload", COMMIT_TIMEOUT_S)
                try:
                    request(node.control, *order)
                except ControlError as error:
                    refusals[node.name] = str(error)
                else:
                    raise LabError(f"{node.name} took over a configuration that was to be refused: {dict(change)}")

        if maglev:
            return self._over(MISCONFIGURE, maglev, give, refusals=refusals)
        return self._fault(MISCONFIGURE, "", self.reload, do=give, refusals=refusals)

    def slow_checks(self, factor: float = 10.0) -> Fault:
        """Slows the clock of all health checks: `factor` times as long between two probes, and for one to be answered.

        What happens to an endpoint is then noticed so much later.
        """
        if not 1 <= factor <= 1000:
            raise WrongUse(f"health checks cannot be slowed {factor:g} times; allowed: 1 to 1000")
        checks = {name: pool["health_check"] for name, pool in self.document["pools"].items() if "health_check" in pool}
        slow = {name: _slowed(check, factor) for name, check in checks.items()}
        return self._fault(
            SLOW_CHECKS, "", lambda: self._set_checks(checks), do=lambda: self._set_checks(slow), factor=factor
        )

    def _set_checks(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        document = copy.deepcopy(self.document)
        for name, check in checks.items():
            document["pools"][name]["health_check"] = dict(check)
        self._serve(document)

    def reload(self) -> None:
        """Writes the configuration, and waits until every running endpoint and forwarder has taken it over."""
        self._serve(self.document)
        for fault in self.faults:
            if fault.what == PUSH:
                fault.undo()

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

    def _serve(self, document: dict[str, Any]) -> None:
        self._write(document)
        for node in self._answering("endpoint", "up", "drained"):
            with contextlib.suppress(ControlError):  # it watches the file as well
                request(node.control, "POST", "/reload", COMMIT_TIMEOUT_S)
        for node in self._answering_maglevs():
            self._have_reload(node)

    def _answering_maglevs(self) -> list[Any]:
        """Returns the Maglevs whose forwarder can be asked: the others read the file when they start, or go on."""
        return self._answering("maglev", "up")

    def _answering(self, role: str, *states: str) -> list[Any]:
        coming_and_going = {fault.where for fault in self.faults if fault.what in ("crash loop", "flap")}
        return [
            node
            for node in self._of_role(role)
            if self.state_of(node.name) in states and node.name not in coming_and_going
        ]

    def _have_reload(self, node: Any) -> None:
        if node in self._answering_maglevs():
            wait_until(lambda: _silence(node), COMMIT_TIMEOUT_S, f"an answer of {node.name}'s forwarder")
            request(node.control, "POST", "/reload", COMMIT_TIMEOUT_S)

    def _write(self, document: dict[str, Any]) -> None:
        self.config = self._validated(document)
        self.document = document
        self.write_config(document)
        self._changed()

    def _entries_of(self, node: LabNode) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields what the configuration says of an endpoint, by pool."""
        for pool, said in self.document["pools"].items():
            for endpoint in said.get("endpoints", []):
                if str(ip_address(endpoint["address"])) in node.addresses.values():
                    yield pool, endpoint

    def _weights(self, node: LabNode) -> dict[str, float]:
        """Returns an endpoint's weight by pool."""
        return {pool: endpoint.get("weight", 1) for pool, endpoint in self._entries_of(node)}

    def _set_weights(self, node: LabNode, weights: Mapping[str, float]) -> None:
        """Gives an endpoint a weight by pool; 1 in one that is not named: it was not in that one before."""
        for pool, endpoint in self._entries_of(node):
            endpoint["weight"] = weights.get(pool, 1)
        self.reload()


def _silence(node: Any) -> str:
    """Returns why a forwarder does not answer: one that was started a moment ago does not yet; "" if it does."""
    try:
        request(node.control, "GET", "/readiness", COMMIT_TIMEOUT_S)
    except ControlError as error:
        return str(error)
    return ""


def _slowed(check: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Returns a health check, as a configuration says it, that takes so many times as long."""
    paces = {"interval_s": 1.0, "timeout_s": 0.5}  # and what they are where nothing is said
    return {**check, **{key: check.get(key, usual) * factor for key, usual in paces.items()}}
