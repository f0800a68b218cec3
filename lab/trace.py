"""Follows packets through a lab: what Maglevs report of them, and what the lab can see besides (Maglev §4.4).

A client sends packets that say "trace me" (`python -m maglev trace`). The routers' own kernels say by which way they
send that flow to a Maglev, the Maglev's packets to the endpoint, and the answer to the client (`paths`). All this is
asked in the nodes' namespaces, so it needs no `Lab`, only a lab that runs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import maglev.config
from maglev.config import Config, Vip

from .errors import LabError, WrongUse
from .nodes import CONFIG, ROOT, project_python
from .paths import OR, Paths, Run
from .site import Site

TIMEOUT_S = 60.0
NOBODY = "?"
PLACED = "placed.json"  # in the directory of a lab that is on several servers: which node is where


@dataclass(frozen=True)
class Journey:
    """What became of packets of one flow, in the names of the lab's nodes."""

    client: str
    routers: tuple[str, ...]  # from the client to the Maglevs
    next_hop: str | None  # the Maglev to which the last router's kernel sends the flow; None if it does not say
    back: tuple[str, ...]  # the answer's way, from the endpoint to the client; empty where no endpoint was reached
    told: Mapping[str, Any]  # what the client was told: `maglev.tracer.Trace` as a document
    names: Mapping[str, str]  # of nodes, by their addresses
    legs: Mapping[str, tuple[str, ...]]  # by Maglev: the routers that its packets go by; none where a switch joins them

    @property
    def hops(self) -> list[Mapping[str, Any]]:
        """Returns all reports, in the order of the Maglevs' clock."""
        return [hop for passage in self.told["passages"] for hop in passage["hops"]]

    @property
    def maglevs(self) -> tuple[str, ...]:
        """Returns the Maglevs that reported, each once, in the order of the way."""
        return tuple(dict.fromkeys(hop["maglev"] for hop in self.hops))

    @property
    def endpoint(self) -> str | None:
        """Returns the endpoint that was chosen last, None if none was."""
        chosen = [self.names.get(hop["target"], NOBODY) for hop in self.hops if hop["vip"] and hop["target"]]
        return chosen[-1] if chosen else None

    @cached_property
    def way(self) -> tuple[str, ...]:
        """Returns the nodes that the first packet went by, from the client to the endpoint."""
        over = [name for maglev in self.maglevs for name in (maglev, *self.legs.get(maglev, ()))]
        return (self.client, *self.routers, *over, *([self.endpoint] if self.endpoint else []))

    def lines(self) -> Iterator[str]:
        """Yields what a person wants to read, hop by hop."""
        told = self.told
        flow = f"{told['source']} port {told['source_port']} to {told['destination']} port {told['port']}"
        yield f"{told['protocol']} from {self.client}, {flow}"
        for router, towards in pairwise((*self.routers, self.next_hop or "")):
            if towards and OR not in router + towards:
                yield f"{'':12}{router}: its kernel sends this flow to {towards}"
        for number, passage in enumerate(told["passages"], 1):
            yield from self._lines_of(number, passage)
        yield f"there: {' -> '.join(self.way)}"
        if self.back:
            yield f"back:  {' -> '.join(self.back)}"

    def _lines_of(self, number: int, passage: Mapping[str, Any]) -> Iterator[str]:
        for hop in passage["hops"]:
            yield f"{number:3} {hop['after_s'] * 1000:6.2f} ms {hop['maglev']}: {self._did(hop)}"
        if answer := passage["answer"]:
            yield f"{number:3} {passage['answered_after_s'] * 1000:6.2f} ms {self.client}: answered, {answer}"
        else:
            yield f"{number:3}           {self.client}: not answered"

    def _did(self, hop: Mapping[str, Any]) -> str:
        target = self.names.get(hop["target"], hop["target"])
        whence = f", sent on by {self.names.get(hop['came_from'], hop['came_from'])}" if hop["came_from"] else ""
        if hop["reason"]:
            return f"dropped, {hop['reason']}{whence}"
        if not hop["vip"] or hop["chooser"] == "fragment owner":
            return f"a fragment, sent on to {target}, which owns its packet"
        slot = "" if hop["slot"] is None else f", slot {hop['slot']}"
        return f"to {target} for {hop['vip']}, by its {hop['chooser']}{slot}{whence}"

    def document(self) -> dict[str, Any]:
        """Returns all of it as plain values, for JSON."""
        return {
            "client": self.client,
            "router": self.routers[0] if self.routers else NOBODY,
            "routers": list(self.routers),
            "next_hop": self.next_hop,
            "way": list(self.way),
            "back": list(self.back),
            **self.told,
        }


def shells_of(site: Site) -> dict[str, int]:
    """Returns the processes that hold the nodes of a running lab, by name; LabError if there are none, or elsewhere."""
    if (site.directory / PLACED).exists():
        raise LabError(f"the lab {site.id} is on several servers: what looks at labs live is for those on one machine")
    found = {}
    for process in site.ledger():
        name, _, what = process.what.partition(": ")
        if what == f"mininet:{name}" and process.alive:
            found[name] = process.pid
    if not found:
        raise LabError(f"no node of the lab {site.id} is running")
    return found


def nodes_of(site: Site) -> dict[str, Run]:
    """Returns how to run commands on the nodes of a running lab, by name; LabError if there are none."""
    return {name: partial(_run_in, pid, {**os.environ}) for name, pid in shells_of(site).items()}


def _run_in(pid: int, environment: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["mnexec", "-a", str(pid), *command],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=dict(environment),
    )  # fmt: skip


def in_site(site: Site, client: str, vip: str, **options: Any) -> Journey:
    """Follows packets through a running lab of another process; see `follow`."""
    return follow(nodes_of(site), maglev.config.load(site.directory / CONFIG), client, vip, **options)


def follow(
    nodes: Mapping[str, Run], config: Config, client: str, vip: str,
    source_port: int | None = None, count: int = 1, fragmented: bool = False,
) -> Journey:  # fmt: skip
    """Sends tracer packets from a client to a VIP, and returns what became of them.

    `source_port` may be that of a connection; `fragmented` sends datagrams larger than any link takes. WrongUse for a
    client or VIP that there is not, or that cannot be traced.
    """
    if client not in nodes:
        raise WrongUse(f"there is no node {client!r}; there are {', '.join(nodes)}")
    wanted = _vip(config, vip, fragmented)
    told = _told(nodes[client], wanted, source_port, count, fragmented)
    paths = Paths(nodes)
    source, destination = told["source"], told["destination"]
    maglevs = {maglev.name for maglev in config.maglevs}
    there = paths.follow(client, destination, _flow(source, told, fragmented), until=maglevs)
    next_hop = there.pop() if there and set(there[-1].split(OR)) <= maglevs else ""
    legs = {
        hop["maglev"]: _leg(paths, config, hop["maglev"], hop["target"])
        for passage in told["passages"]
        for hop in passage["hops"]
        if hop["target"] and hop["maglev"] in nodes
    }
    journey = Journey(client, tuple(there), None if OR in next_hop else next_hop or None, (), told, paths.names, legs)
    if journey.endpoint not in nodes:
        return journey
    answer = [
        "from",
        destination,
        "ipproto",
        told["protocol"],
        "sport",
        str(told["port"]),
        "dport",
        str(told["source_port"]),
    ]
    return replace(journey, back=(journey.endpoint, *paths.follow(journey.endpoint, source, answer)))


def _leg(paths: Paths, config: Config, maglev: str, target: str) -> tuple[str, ...]:
    """Returns the routers by which a Maglev's packets go to a target."""
    own = next(address for address in config.maglev(maglev).addresses if address.version == ip_address(target).version)
    met = paths.follow(maglev, target, ["from", str(own)])
    return tuple(met[:-1] if met[-1:] == [paths.names.get(target)] else met)


def _flow(source: str, told: Mapping[str, Any], fragmented: bool) -> list[str]:
    """Returns what routers see of the client's packets, in the words of `ip route get`; of fragments no ports."""
    ports = [] if fragmented else ["sport", str(told["source_port"]), "dport", str(told["port"])]
    return ["from", source, "ipproto", told["protocol"], *ports]


def _vip(config: Config, name: str, fragmented: bool) -> Vip:
    allowed = {vip.name: vip for vip in reversed(config.placed_vips) if vip.protocol in ("tcp", "udp") and vip.port}
    if name not in allowed:
        raise WrongUse(f"there is no VIP {name!r} with ports; there are {', '.join(reversed(allowed))}")
    if fragmented and allowed[name].protocol != "udp":
        raise WrongUse(f"{name} is not served over udp, and only datagrams are sent in fragments")
    return allowed[name]


def _told(run: Run, vip: Vip, source_port: int | None, count: int, fragmented: bool) -> dict[str, Any]:
    command = ["env", f"PYTHONPATH={ROOT}", project_python(), "-m", "maglev", "trace", str(vip.address), str(vip.port)]
    command += ["--protocol", str(vip.protocol), "--count", str(count), "--json"]
    command += ["--source-port", str(source_port)] if source_port else []
    done = run(*command, *(["--fragmented"] if fragmented else []))
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise LabError(f"nothing could be traced: {done.stderr.strip()}") from None
    return told
