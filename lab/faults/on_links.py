"""What can be done to links: cut, cut one way, impaired, and all of that in turns.

A link is called by its ends, as `r1-m1`. What is done to it is done at one end, the router's where it has one: at a
Maglev's end an AF_XDP forwarder takes and sends packets where neither nftables nor queueing disciplines see them, and
a host that loses its interface loses its routes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import WrongUse
from ..nodes import LabNode
from . import impaired
from .effect import ALL_LOST, NO_EFFECT, Effect, of_endpoint
from .fault import Fault
from .impairment import Impairment
from .on_nodes import NodeFaults
from .repeating import Repeating
from .shim import IN, OUT

LINK_DOWN, ONE_WAY, IMPAIR, FLAP = "link down", "one way", "impair", "flap"
NEAREST = ("router", "client", "endpoint", "maglev")  # whose end something is done at, by preference


@dataclass(frozen=True)
class Link:
    """A link, seen from the end at which things are done to it."""

    near: Any  # Mininet's interfaces
    far: Any

    @property
    def name(self) -> str:
        """Returns how the link is called."""
        return f"{self.near.node.name}-{self.far.node.name}"

    @property
    def node(self) -> LabNode:
        """Returns the node at whose end things are done."""
        node: LabNode = self.near.node
        return node

    @property
    def is_seen_in(self) -> bool:
        """Says whether the near end's kernel sees what comes in before anybody else does: a switch may be first."""
        return bool(getattr(self.near.node, "sees_incoming", True))

    @property
    def from_where_seen(self) -> Link:
        """Returns the link from an end where both directions are seen, if it has one: a Maglev's end is none."""
        return self if self.is_seen_in or self.far.node.role == "maglev" else Link(self.far, self.near)

    def direction(self, towards: str) -> str:
        """Returns the direction of packets to one end, by its node's name; WrongUse if it is none of its ends."""
        directions = {self.far.node.name: OUT, self.near.node.name: IN}
        if towards not in directions:
            raise WrongUse(f"{towards!r} is no end of {self.name}; allowed: {' or '.join(directions)}")
        return directions[towards]


class LinkFaults(NodeFaults):
    """What `Lab` does to links."""

    @property
    def links(self) -> list[str]:
        """Returns the links' names."""
        return [link.name for link in self._links()]

    def link_down(self, link: str) -> Fault:
        """Takes a link down: both ends see that it has no carrier."""
        found = self._free_link(link, LINK_DOWN)
        kept: list[str] = []
        return self._fault(
            LINK_DOWN, found.name, lambda: _bring_up(found, kept), do=lambda: kept.extend(_take_down(found)),
            effect=self._cut(found),
        )  # fmt: skip

    def one_way(self, link: str, dead_towards: str) -> Fault:
        """Has a link lose all packets towards one of its ends; the other direction works, and both see it up."""
        found = self._free_link(link, ONE_WAY)
        at = found.from_where_seen
        direction = at.direction(dead_towards)
        if direction == IN and not at.is_seen_in:
            return self._deaf(found)
        table = f"maglab_one_way_{at.near}"
        hook = {OUT: "egress", IN: "ingress"}[direction]
        chain = f'chain dead {{\n    type filter hook {hook} device "{at.near}" priority -300; policy drop;\n}}'

        def cut() -> None:
            impaired.load_rules(at.node, f"table netdev {table} {{\n{chain}\n}}\n")

        return self._fault(
            ONE_WAY, found.name, lambda: at.node.run("nft", "delete", "table", "netdev", table), do=cut,
            effect=self._cut(found), dead_towards=dead_towards,
        )  # fmt: skip

    def _deaf(self, link: Link) -> Fault:
        """Has a switch drop all that comes in by a port."""
        router: Any = link.node
        return self._fault(
            ONE_WAY, link.name, lambda: router.set_receiving(link.near, True),
            do=lambda: router.set_receiving(link.near, False), effect=self._cut(link), dead_towards=router.name,
        )  # fmt: skip

    def impair(self, link: str, towards: str | None = None, *, seed: int = 1, **wrong: float) -> Fault:
        """Makes a link bad, in both directions or towards one end: what is wrong is said as for `Impairment`.

        In each direction separately: with `delay_ms=10` a packet and its answer take 20 ms more. The kernel's netem
        does it where there is one, a process on the link elsewhere; the fault's `detail` says which. What the process
        does follows from `seed`; netem's chances are its own. Where a switch takes frames before the kernel sees them,
        a link to a Maglev can be bad towards the Maglev alone, and is.
        """
        try:
            impairment = Impairment(**wrong)
        except TypeError:
            allowed = ", ".join(Impairment.__dataclass_fields__)
            raise WrongUse(f"impair takes no {', '.join(map(repr, wrong))}; allowed: {allowed}") from None
        found = self._free_link(link, IMPAIR)
        at = found.from_where_seen
        directions = [at.direction(towards)] if towards else [OUT, IN] if at.is_seen_in else [OUT]
        if IN in directions and not at.is_seen_in:
            raise WrongUse(
                f"{at.near.node.name} takes frames before its kernel: allowed is towards {at.far.node.name!r}"
            )
        towards = towards if at.is_seen_in else at.far.node.name
        by = impaired.means()
        bad = impaired.BadLink(at.node, str(at.near), dict.fromkeys(directions, impairment), seed)
        end, begin = (bad.end_netem, bad.begin_netem) if by == "netem" else (bad.end_shim, bad.begin_shim)
        effect = NO_EFFECT
        if impairment.may_be_noticed:
            effect = self._cut(found) if impairment.is_dead else self._disturbed(found)
        return self._fault(
            IMPAIR,
            found.name,
            end,
            do=begin,
            effect=effect,
            towards=towards,
            words=impairment.words(),
            by=by,
            may_be_noticed=impairment.may_be_noticed,
        )

    def flap(self, where: str, every_s: float = 1.0) -> Fault:
        """Takes a link down and up in turns, each for `every_s`; or, given a node, kills and starts its daemons."""
        if where in self.net and self.node(where).role in ("maglev", "endpoint"):
            return self._flap_node(where, every_s)
        found = self._free_link(where, LINK_DOWN)
        kept: list[str] = []

        def steps() -> Iterator[float]:
            while True:
                kept[:] = _take_down(found)
                yield every_s
                _bring_up(found, kept)
                yield every_s

        going = Repeating(f"flap {found.name}", steps)

        def calm() -> None:
            going.end_and_tell()
            _bring_up(found, kept)

        return self._fault(
            FLAP, found.name, calm, do=lambda: self._repeat(going), effect=self._disturbed(found), every_s=every_s
        )

    def _flap_node(self, name: str, every_s: float) -> Fault:
        node = self._running_node(name)

        def steps() -> Iterator[float]:
            while True:
                node.stop_daemons()
                yield every_s
                node.start_daemons()
                yield every_s

        return self._in_turns(FLAP, name, steps, Effect(unsettled=frozenset({name})), every_s=every_s)

    def _links(self) -> list[Link]:
        found = []
        for link in self.net.links:
            near, far = sorted((link.intf1, link.intf2), key=_distance)
            found.append(Link(near, far))
        return found

    def link(self, name: str) -> Link:
        """Returns a link by the names of its ends, in either order; WrongUse, with those there are, otherwise."""
        for link in self._links():
            near, far = link.near.node.name, link.far.node.name
            if name in (f"{near}-{far}", f"{far}-{near}"):
                return link
        raise WrongUse(f"there is no link {name!r}; there are {', '.join(self.links)}")

    def _free_link(self, name: str, kind: str) -> Link:
        """Returns a link to which nothing of a kind, nor a flap, has been done yet; WrongUse otherwise."""
        link = self.link(name)
        for end in (link.near.node, link.far.node):
            if not end.is_here:
                raise WrongUse(f"{link.name} ends on {end.server}: things are done to links within this machine only")
        if fault := self._newest(link.name, (kind, FLAP)):
            raise WrongUse(f"{link.name}: there is a fault already: {fault.what}")
        return link

    def _cut(self, link: Link) -> Effect:
        """Returns what follows when packets no longer pass both ways."""
        near, far = link.near.node, link.far.node
        if near.role == "router" and (far.role == "maglev" or any(other.node is far for _, other in near.peers())):
            return Effect(apart=frozenset({(near.name, far.name)}))
        if far.role == "endpoint":
            return of_endpoint(self.config, far.name, far.addresses.values(), {ALL_LOST})
        return self._disturbed(link)

    def _disturbed(self, link: Link) -> Effect:
        """Returns what follows when packets sometimes pass: clients are nobody's concern."""
        ends = {end.node for end in (link.near, link.far)}
        if any(node.role == "client" for node in ends):
            return NO_EFFECT
        others = {node.name for node in ends if node.role != "router"}
        return Effect(unsettled=frozenset(others or {node.name for node in ends}))


def _distance(end: Any) -> int:
    return NEAREST.index(end.node.role) if end.node.role in NEAREST else 1


def _take_down(link: Link) -> list[str]:
    """Takes a link down; returns the routes that its end loses thereby and will not find again by itself."""
    kept = []
    for family in ("-4", "-6"):
        shown = link.node.run("ip", family, "route", "show", "dev", str(link.near)).stdout.splitlines()
        kept += [f"{family} {line}" for line in shown if "proto" not in line.split() or "static" in line.split()]
    link.node.run("ip", "link", "set", str(link.near), "down")
    return kept


def _bring_up(link: Link, kept: list[str]) -> None:
    link.node.run("ip", "link", "set", str(link.near), "up")
    for line in kept:
        family, *route = line.replace("linkdown", "").replace("dead", "").split()
        if "expires" not in route:
            link.node.run("ip", family, "route", "replace", *route, "dev", str(link.near))
