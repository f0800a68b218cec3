"""Who is in a topology and how they are wired, as plain data: for drawings, captures, views and completion.

Pure: made from a Mininet `Topo`, or read from the file that a running lab leaves in its directory, so that another
process knows a lab as the one that built it does. A link is called by the names of both ends, the one nearer to the
clients first (`c1-r1`, `r1-m1`); either order finds it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from .errors import LabError, WrongUse

FILE = "wiring.json"  # in the lab's directory
Wire = Mapping[str, Any]  # a link as Mininet's `Topo` has it: node1, port1, params1, and the same with 2
ROLES = ("client", "nameserver", "router", "switch", "maglev", "endpoint", "node")  # from the internet inwards


@dataclass(frozen=True)
class Node:
    """A machine: its role, and the addresses of its first interface, IPv4 first."""

    name: str
    role: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """Where a link ends."""

    node: str
    interface: str


@dataclass(frozen=True)
class Link:
    """A wire between two machines; several between the same two are told apart by a number: `r1-m1#2`."""

    name: str
    ends: tuple[End, End]

    @property
    def nodes(self) -> tuple[str, str]:
        """Returns the names of both ends."""
        return self.ends[0].node, self.ends[1].node

    @property
    def names(self) -> tuple[str, str]:
        """Returns what it may be called: the names of its ends in either order."""
        near, far = self.nodes
        return self.name, f"{far}-{near}{self.name.removeprefix(f'{near}-{far}')}"

    def other(self, node: str) -> str:
        """Returns who is at the other end."""
        near, far = self.nodes
        return far if node == near else near

    def end_at(self, node: str) -> End:
        """Returns the end at a node."""
        return self.ends[0] if self.ends[0].node == node else self.ends[1]


@dataclass(frozen=True)
class Wiring:
    """Nodes and links, in a natural order of their names: `m2` stands before `m10`."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    @cached_property
    def role_of(self) -> Mapping[str, str]:
        """Returns each node's role."""
        return {node.name: node.role for node in self.nodes}

    def names(self, *roles: str) -> list[str]:
        """Returns the names of the nodes that have one of the roles; of all, if none is named."""
        return [node.name for node in self.nodes if not roles or node.role in roles]

    def node(self, name: str) -> Node:
        """Returns a node by name; WrongUse, naming those there are, if there is none."""
        found = next((node for node in self.nodes if node.name == name), None)
        if found is None:
            raise WrongUse(f"there is no node {name!r}; there are {', '.join(self.names())}")
        return found

    def link(self, name: str) -> Link:
        """Returns a link by the names of its ends, in either order; WrongUse, naming those there are, if none."""
        found = next((link for link in self.links if name in link.names), None)
        if found is None:
            raise WrongUse(f"there is no link {name!r}; there are {', '.join(link.name for link in self.links)}")
        return found

    def neighbours(self, node: str) -> list[str]:
        """Returns who is at the other end of a node's links, each once."""
        return list(dict.fromkeys(link.other(node) for link in self.links if node in link.nodes))

    @cached_property
    def link_of(self) -> Mapping[str, Link]:
        """Returns the link of each interface, by the interface's name."""
        return {end.interface: link for link in self.links for end in link.ends}

    def write(self, path: Path) -> None:
        """Writes it to a file that `read` takes."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read(path: Path) -> Wiring:
    """Returns the wiring in a file; LabError if there is none, or it is no such file."""
    try:
        return of_document(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise LabError(f"{path} is not there: no running lab has this directory") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{path} is damaged: {error}") from None


def of_document(document: Mapping[str, Any]) -> Wiring:
    """Returns the wiring that a JSON document stands for; KeyError, TypeError or ValueError if it is none."""
    nodes = [Node(each["name"], each["role"], tuple(each["addresses"])) for each in document["nodes"]]
    links = [Link(each["name"], _ends(each["ends"])) for each in document["links"]]
    return Wiring(tuple(nodes), tuple(links))


def _ends(pair: Iterable[Mapping[str, str]]) -> tuple[End, End]:
    near, far = (End(**each) for each in pair)
    return near, far


def of_topo(topo: Any) -> Wiring:
    """Returns the wiring of a Mininet `Topo`; what has no role of ours is a `switch` or a `node`."""
    wires = [info for _, _, info in topo.links(withInfo=True)]
    roles = {name: _role(topo, name) for name in sorted(topo.nodes(), key=natural)}
    nodes = [Node(name, role, _first_addresses(name, wires)) for name, role in roles.items()]
    return Wiring(tuple(nodes), tuple(_links(wires, roles)))


def _first_addresses(name: str, wires: Iterable[Wire]) -> tuple[str, ...]:
    """Returns the addresses of a node's first interface, which is that with the lowest port."""
    ends = [(wire[f"port{end}"], wire.get(f"params{end}") or {}) for wire in wires for end in (1, 2)
            if wire[f"node{end}"] == name]  # fmt: skip
    params = min(ends, key=lambda end: end[0])[1] if ends else {}
    return tuple(str(ip_interface(params[key]).ip) for key in ("address", "address6") if key in params)


def _role(topo: Any, name: str) -> str:
    role = getattr(topo.nodeInfo(name).get("cls"), "role", "")
    return role if role in ROLES else "switch" if topo.isSwitch(name) else "node"


def _links(wires: Iterable[Wire], roles: Mapping[str, str]) -> list[Link]:
    found: dict[str, Link] = {}
    for wire in wires:
        ends = [_end(wire, number) for number in (1, 2)]
        near, far = sorted(ends, key=lambda end: (ROLES.index(roles[end.node]), natural(end.node)))
        stem = f"{near.node}-{far.node}"
        name = next(name for name in itertools.chain([stem], _numbered(stem)) if name not in found)
        found[name] = Link(name, (near, far))
    return sorted(found.values(), key=lambda link: natural(link.name))


def _numbered(stem: str) -> Iterator[str]:
    return (f"{stem}#{number}" for number in itertools.count(2))


def _end(wire: Wire, number: int) -> End:
    name = wire[f"node{number}"]
    return End(name, wire.get(f"intfName{number}") or f"{name}-eth{wire[f'port{number}']}")


def natural(name: str) -> tuple[object, ...]:
    """Returns what sorts names as people do: numbers in them by their value."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)
