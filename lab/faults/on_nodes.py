"""What can be done to nodes: the part of `Lab` that kills, freezes, restarts and drains them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from maglev.engine.control import request

from .. import observe
from ..errors import WrongUse
from ..nodes import ConfiguredNode, LabNode
from ..waiting import wait_until
from . import darkness
from .effect import ALL_LOST, DECAPSULATION_LOST, SERVERS_FROZEN, SERVERS_KILLED, Effect, of_endpoint
from .fault import Fault
from .freezing import PACKETS, end_gre_devices, frozen_daemon, frozen_gre_devices, frozen_packet_threads
from .on_configuration import ConfigurationFaults
from .registry import CONVERGE_TIMEOUT_S
from .repeating import Repeating

DRAIN_QUIET_S = 0.1  # a drained Maglev's share is gone when no router sends to it, and for so long nothing has come
KILL, POWER_OFF, FREEZE, DRAIN, RESTART, CRASH_LOOP = "kill", "power off", "freeze", "drain", "restart", "crash loop"
ENDPOINT = "endpoint"  # the daemon that decapsulates
DOWN = (KILL, POWER_OFF)  # what `revive` undoes, and the drain of a Maglev
DAEMONS_OF_ROLE = {"maglev": ("forwarder", "exabgp"), "endpoint": ("servers", "endpoint")}
SERVING = {"maglev": ("forwarder",), "endpoint": ("servers", "endpoint")}  # what a freeze stops, unless it is told
EVERYTHING = "all"
SERVERS = ("maglev", "endpoint")
OUTSIDE = ("router", "nameserver")  # of whom others notice only that they are gone
MORTAL = (*SERVERS, *OUTSIDE)  # whom one can kill, or take the power of


class NodeFaults(ConfigurationFaults):
    """What `Lab` does to nodes."""

    def kill(self, name: str, daemon: str | None = None) -> Fault:
        """Kills a Maglev's, an endpoint's, a router's or a name server's processes with SIGKILL, or only one daemon's.

        A router's kernel goes on forwarding; its neighbours hear that its sessions end, and turn away.
        """
        node = self._running_node(name, *MORTAL)
        daemons = self._daemons_of(node, daemon, tuple(node.daemons))
        return self._fault(
            KILL,
            name,
            lambda: self._start_again(node),
            do=lambda: _kill(node, daemons),
            effect=self._loss(node, daemons, SERVERS_KILLED),
            daemons=daemons,
        )

    def power_off(self, name: str) -> Fault:
        """Takes the power of a node that one can kill: no goodbye, all packets there just vanish."""
        node = self._running_node(name, *MORTAL)

        def cut() -> None:
            darkness.power_off(node)
            node.is_dark = True

        effect = self._out_of_reach(node)
        return self._fault(POWER_OFF, name, lambda: self._start_again(node), do=cut, effect=effect)

    def revive(self, name: str) -> None:
        """Starts a node again that was killed or powered off, or a Maglev that was drained."""
        node = self.node(name, *MORTAL)
        kinds = (*DOWN, DRAIN) if node.role == "maglev" else DOWN
        self._undo_newest(name, kinds, "down")

    def freeze(self, name: str, daemon: str | None = None) -> Fault:
        """Stops a Maglev's forwarder, or all of an endpoint's daemons (SIGSTOP), until they are thawed.

        A Maglev is then alive to BGP, and dead to packets; an endpoint's kernel accepts connections that nobody
        serves. `daemon` names another one, `all` means all. `packets` holds up a forwarder's packet threads alone:
        it still answers when it is asked for its status.
        """
        node = self._running_node(name)
        if not node.is_here:
            raise WrongUse(f"{name} is on {node.server}, and only nodes of this machine are frozen: kill it instead")
        if self._newest(name, (FREEZE,)):
            raise WrongUse(f"{name} is frozen already")
        packets = daemon == PACKETS and node.role == "maglev"
        daemons = ("forwarder",) if packets else self._daemons_of(node, daemon, SERVING[node.role])
        frozen = ExitStack()

        def stop() -> None:
            with ExitStack() as stopping:
                for each in daemons:
                    held = frozen_packet_threads(node) if packets else frozen_daemon(node.daemons[each])
                    stopping.enter_context(held)
                if ENDPOINT in daemons:
                    stopping.enter_context(frozen_gre_devices(node))
                frozen.push(stopping.pop_all())

        effect = self._loss(node, daemons, SERVERS_FROZEN)
        stopped = (PACKETS,) if packets else daemons
        return self._fault(FREEZE, name, frozen.close, do=stop, effect=effect, daemons=stopped)

    def thaw(self, name: str) -> None:
        """Lets a frozen node go on."""
        self.node(name, "maglev", "endpoint")
        self._undo_newest(name, (FREEZE,), "frozen")

    def restart(self, name: str) -> Fault:
        """Kills a node's daemons and starts them again at once, as a supervisor would; nothing is left to undo."""
        node = self._running_node(name)

        def again() -> None:
            node.stop_daemons()
            node.start_daemons()

        return self._over(RESTART, name, again, Effect(unsettled=frozenset({name})))

    def crash_loop(self, name: str, every_s: float = 1.0) -> Fault:
        """Kills a node's daemons every `every_s` seconds, and starts them again each time, until it is undone."""
        node = self._running_node(name)

        def steps() -> Iterator[float]:
            while True:
                node.stop_daemons()
                node.start_daemons()
                yield every_s

        return self._in_turns(CRASH_LOOP, name, steps, Effect(unsettled=frozenset({name})), every_s=every_s)

    def drain(self, name: str) -> Fault:
        """Takes a node out of service without hurting a connection.

        An endpoint gets weight 0: it keeps the connections it has, and no new one. A Maglev withdraws its VIPs; when
        its share of the packets has gone elsewhere, its daemons are stopped.
        """
        node = self.node(name, "maglev", "endpoint")
        if self._newest(name, (*DOWN, DRAIN)):
            raise WrongUse(f"{name} is down or drained already")
        if node.role == "endpoint":
            effect, weights = Effect(drained=frozenset({name})), self._weights(node)
            undrained, drained = partial(self._set_weights, node, weights), dict.fromkeys(weights, 0.0)
            return self._fault(DRAIN, name, undrained, do=lambda: self._set_weights(node, drained), effect=effect)
        effect = Effect(withdrawn=frozenset({name}))
        return self._fault(
            DRAIN, name, lambda: self._start_again(node), do=lambda: self._drain_maglev(node), effect=effect
        )

    def _drain_maglev(self, node: ConfiguredNode) -> None:
        self._changed()
        request(node.control, "POST", "/drain")
        self._wait_withdrawn(node)
        wait = f"wait_s={CONVERGE_TIMEOUT_S:g}&quiet_s={DRAIN_QUIET_S:g}"
        request(node.control, "POST", f"/drain?{wait}", 2 * CONVERGE_TIMEOUT_S)
        node.stop_daemons()

    def undrain(self, name: str) -> None:
        """Gives a drained endpoint its weight back."""
        self.node(name, "endpoint")
        self._undo_newest(name, (DRAIN,), "drained")

    def state_of(self, name: str) -> str:
        """Returns what was done to a node: `off`, `down`, `drained`, `frozen` or `up`."""
        node = self.node(name)
        if node.is_dark:
            return "off"
        if self._is_down(node):
            return "down"
        return next(
            (state for kind, state in ((DRAIN, "drained"), (FREEZE, "frozen")) if self._newest(name, (kind,))), "up"
        )

    def _is_down(self, node: LabNode) -> bool:
        """Says whether a node was killed or powered off, or is a Maglev that was drained, and so stopped."""
        return self._newest(node.name, (*DOWN, DRAIN) if node.role == "maglev" else DOWN) is not None

    def _running_node(self, name: str, *roles: str) -> Any:
        """Returns a Maglev or an endpoint, or one of the roles; WrongUse if it is down, or comes and goes already."""
        node = self.node(name, *(roles or SERVERS))
        if self._is_down(node):
            raise WrongUse(f"{name} is down already")
        if fault := self._newest(name, (CRASH_LOOP, "flap")):
            raise WrongUse(f"{name} is in a {fault.what} already")
        return node

    def _daemons_of(self, node: LabNode, daemon: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the daemons that are meant; WrongUse, with those that run, if it does not run one of them."""
        wanted = tuple(node.daemons) if daemon == EVERYTHING else (daemon,) if daemon else usual
        if missing := [each for each in wanted if each not in node.daemons]:
            raise WrongUse(f"{node.name} runs no {missing[0]!r}; it runs {', '.join(node.daemons) or 'nothing'}")
        return wanted

    def _start_again(self, node: LabNode) -> None:
        """Starts a node's daemons anew; whatever froze the old ones is over."""
        node.stop_daemons()
        if node.is_dark:
            darkness.light(node)
            node.is_dark = False
        node.start_daemons()
        if fault := self._newest(node.name, (FREEZE,)):
            fault.undo()

    def _in_turns(
        self, what: str, where: str, steps: Callable[[], Iterator[float]], effect: Effect, **detail: Any
    ) -> Fault:
        """Makes a fault of what goes on in the background; when it is undone, all of the node runs."""
        node = self.node(where, "maglev", "endpoint")
        going = Repeating(f"{what} {where}", steps)

        def calm() -> None:
            going.end_and_tell()
            if set(DAEMONS_OF_ROLE[node.role]) - set(node.daemons):
                self._start_again(node)

        return self._fault(what, where, calm, do=lambda: self._repeat(going), effect=effect, **detail)

    def _loss(self, node: Any, daemons: tuple[str, ...], servers_lost: str) -> Effect:
        """Returns what follows when daemons of a node no longer do their work."""
        if node.role == "maglev":
            return Effect(withdrawn=frozenset({node.name}))
        if node.role in OUTSIDE:
            return Effect(gone=frozenset({node.name}))
        lost = {servers_lost} if "servers" in daemons else set()
        if ENDPOINT in daemons:
            lost.add(DECAPSULATION_LOST)
        return of_endpoint(self.config, node.name, node.addresses.values(), lost)

    def _out_of_reach(self, node: Any) -> Effect:
        if node.role == "maglev":
            return Effect(withdrawn=frozenset({node.name}))
        if node.role in OUTSIDE:
            return Effect(gone=frozenset({node.name}))
        return of_endpoint(self.config, node.name, node.addresses.values(), {ALL_LOST})

    def _wait_withdrawn(self, node: ConfiguredNode) -> None:
        """Waits until no router sends to a Maglev any more."""

        def missing() -> str:
            hops = {hop for router in self._of_role("router") for each in observe.ecmp(router).values() for hop in each}
            return "" if hops.isdisjoint(node.addresses.values()) else f"a router still sends to {node.name}"

        wait_until(missing, CONVERGE_TIMEOUT_S, f"draining {node.name}")


def _kill(node: Any, daemons: tuple[str, ...]) -> None:
    """Kills daemons with SIGKILL, and an endpoint's decapsulation with the daemon, where the kernel does it too."""
    node.stop_daemons(names=daemons)
    if ENDPOINT in daemons:
        end_gre_devices(node)
