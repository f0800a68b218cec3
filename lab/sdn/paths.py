"""Who announces what: the paths that BGP peers have sent, and those of an earlier life that still count. Pure.

A controller that comes back finds a switch that has gone on forwarding. Until a peer has had time to say again what it
announces, what the switch sends to it is believed (as in BGP's graceful restart, RFC 4724, of which only this much is
here): so no flow moves because the controller was away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from ..bird import ESTABLISHED
from .rules import Routes

FIRST_WORDS_S = 2.0  # a peer whose session works has sent all its paths by then
RETURN_S = 65.0  # a peer that has not come back by then is gone: ExaBGP waits 60 s at most before it tries again
DOWN = "Down"  # a session that does not work


def named(prefix: str) -> str:
    """Returns how a VIP is called: a prefix of one address by that alone."""
    network = ip_network(prefix)
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


class Paths:
    """What each peer announces; `allowed` are the prefixes within which VIPs lie: nothing else is let in."""

    def __init__(self, peers: Iterable[str], allowed: Iterable[str], now: float) -> None:
        self._allowed = [ip_network(prefix) for prefix in allowed]
        self._began = now
        self._up_at: dict[str, float | None] = dict.fromkeys(peers)
        self._kept: set[tuple[str, str]] = set()  # VIP, peer: believed for a while
        self._hops: dict[tuple[str, str], str] = {}  # VIP, peer: next hop

    @property
    def sessions(self) -> Mapping[str, tuple[str, str]]:
        """Returns the state of each peer's session, and since when it works, by the peer's address."""
        return {peer: (DOWN, "") if at is None else (ESTABLISHED, f"{at:.6f}") for peer, at in self._up_at.items()}

    def keep(self, vip: str, peer: str) -> None:
        """Believes that a peer announces a VIP, until it has had time to say so itself."""
        if peer in self._up_at:
            self._kept.add((vip, peer))

    def up(self, peer: str, now: float) -> None:
        """A peer's session works."""
        self._up_at[peer] = now

    def down(self, peer: str) -> None:
        """A peer's session has ended: all its paths go with it. One that we have not heard of yet is still believed."""
        if self._up_at.get(peer) is not None:
            self._kept = {each for each in self._kept if each[1] != peer}
        self._up_at[peer] = None
        self._hops = {each: hop for each, hop in self._hops.items() if each[1] != peer}

    def announced(self, peer: str, prefix: str, hop: str) -> bool:
        """Takes a path; False if it is none that is let in."""
        vip, network = named(prefix), ip_network(prefix)
        if not any(network.version == each.version and network.subnet_of(each) for each in self._allowed):  # type: ignore[arg-type]
            return False
        self._kept.discard((vip, peer))
        self._hops[vip, peer] = hop
        return True

    def withdrawn(self, peer: str, prefix: str) -> None:
        """Forgets a path."""
        self._kept.discard((named(prefix), peer))
        self._hops.pop((named(prefix), peer), None)

    def routes(self, now: float) -> Routes:
        """Returns each VIP's next hops."""
        found: dict[str, set[str]] = {}
        for (vip, _), hop in self._hops.items():
            found.setdefault(vip, set()).add(hop)
        self._kept = {each for each in self._kept if now < self._believed_until(each[1])}
        for vip, peer in self._kept:
            found.setdefault(vip, set()).add(peer)  # a Maglev announces itself
        return {vip: frozenset(hops) for vip, hops in found.items()}

    @property
    def wakes_at(self) -> float | None:
        """Returns when routes change although nobody has said anything; None if they will not."""
        return min((self._believed_until(peer) for _, peer in self._kept), default=None)

    def _believed_until(self, peer: str) -> float:
        at = self._up_at[peer]
        return self._began + RETURN_S if at is None else at + FIRST_WORDS_S
