"""What can be done to routing: sessions reset, next hops taken from a router and given back by its operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import observe
from ..errors import WrongUse
from ..waiting import wait_until
from . import spraying
from .effect import Effect
from .fault import Fault
from .on_links import LinkFaults
from .registry import CONVERGE_TIMEOUT_S

RESET_SESSION, REMOVE_NEXT_HOP, SPRAY_FRAGMENTS = "reset session", "remove next hop", "spray fragments"


class RouteFaults(LinkFaults):
    """What `Lab` does to routers."""

    def reset_session(self, maglev: str, router: str | None = None) -> Fault:
        """Resets a Maglev's BGP sessions, with all routers or one; they come back by themselves."""
        routers = self._routers_of(maglev, router)

        def reset() -> None:
            for node in routers:
                before = node.sessions_with(maglev)
                node.tell_sessions(maglev, "restart")
                self._wait_reset(node, maglev, before)

        effect = Effect(unsettled=frozenset({maglev}))
        return self._over(RESET_SESSION, maglev, reset, effect, routers=[node.name for node in routers])

    def remove_next_hop(self, router: str, maglev: str) -> Fault:
        """Takes a Maglev from a router's next hops, as its operator might: the Maglev itself is well, and announces."""
        (node,) = self._routers_of(maglev, router)
        where = f"{router}-{maglev}"
        if self._newest(where, (REMOVE_NEXT_HOP,)):
            raise WrongUse(f"{maglev} is no next hop of {router} already")

        def remove() -> None:
            node.tell_sessions(maglev, "disable")
            self._wait_no_hop(node, maglev)

        effect = Effect(apart=frozenset({(router, maglev)}))
        return self._fault(
            REMOVE_NEXT_HOP, where, lambda: node.tell_sessions(maglev, "enable"), do=remove, effect=effect
        )

    def spray_fragments(self, router: str, maglevs: Sequence[str] = ()) -> Fault:
        """Has a router deal fragments to VIPs out over Maglevs, as one does that hashes them by what each shows.

        They go to all Maglevs behind it, or those named, whether these serve or not: BGP is not asked.
        """
        node = self.node(router, "router")
        if self._newest(router, (SPRAY_FRAGMENTS,)):
            raise WrongUse(f"{router} sprays fragments already")
        if not node.hashes_fragments_alike:
            raise WrongUse(f"{router} hashes each fragment by what it shows already: it is a switch, not Linux")
        chosen = list(maglevs) or [end.node.name for _, end in node.neighbours("maglev")]
        return self._fault(
            SPRAY_FRAGMENTS,
            router,
            lambda: spraying.end(node, len(chosen)),
            do=lambda: spraying.begin(node, chosen),
        )

    def add_next_hop(self, router: str, maglev: str) -> None:
        """Gives a router a next hop back that was taken from it."""
        self._routers_of(maglev, router)
        self._undo_newest(f"{router}-{maglev}", (REMOVE_NEXT_HOP,), "removed")

    def _routers_of(self, maglev: str, router: str | None) -> list[Any]:
        """Returns the routers that a Maglev has links to, or the one of them that is named; WrongUse if it is none."""
        there = {end.node.name: end.node for _, end in self.node(maglev, "maglev").neighbours("router")}
        if router is not None and router not in there:
            raise WrongUse(f"{maglev} has no session with {router!r}; it has with {', '.join(there)}")
        return [there[router]] if router else list(there.values())

    @staticmethod
    def _wait_no_hop(router: Any, maglev: str) -> None:
        """Waits until a router's kernel does not send to a Maglev, or no longer."""

        def missing() -> str:
            return f"{router.name} still sends to {maglev}" if _sends_to(router, maglev) else ""

        wait_until(missing, CONVERGE_TIMEOUT_S, f"the end of a session with {maglev}")

    @staticmethod
    def _wait_reset(router: Any, maglev: str, before: Sequence[Sequence[str]]) -> None:
        """Waits until a router's kernel does not send to a Maglev, or does again: sessions may be back in no time."""

        def missing() -> str:
            now = router.sessions_with(maglev)
            are_new = all(session not in before and observe.ESTABLISHED in session for session in now)
            return "" if are_new or not _sends_to(router, maglev) else f"{router.name} still sends to {maglev}"

        wait_until(missing, CONVERGE_TIMEOUT_S, f"the end of a session with {maglev}")


def _sends_to(router: Any, maglev: str) -> bool:
    """Says whether a Maglev is a next hop in a router's kernel."""
    (end,) = [end for _, end in router.neighbours("maglev") if end.node.name == maglev]
    hops = {hop for each in observe.ecmp(router).values() for hop in each}
    return not hops.isdisjoint(router.addresses_of(end).values())
