"""A network over several servers: Mininet's `MininetCluster`, with our nodes and our placer.

Links between servers are the cluster edition's tunnels by ssh (`RemoteLink`): Ethernet frames in ssh's own TCP
connection. So they carry any MTU whatever the network between the servers carries, which `RemoteGRELink` would not: its
1,450 bytes hold no packet of 1,500 that a Maglev has put into GRE.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mininet.examples.cluster import MininetCluster, Placer, RemoteLink
from mininet.topo import Topo

from ..errors import CannotStart, LabError
from ..network import Machines, Net
from ..nodes import CONFIG
from ..site import Site
from ..trace import PLACED
from ..wiring import Wiring, of_topo
from .away import Away
from .checks import insist
from .nodes import placed
from .placement import HERE, place
from .servers import Server, parse

TAP = "tap9"  # by this name the cluster edition makes each end of a tunnel, before it moves and renames it
TUN_DEVICE = Path("/dev/net/tun")  # by which they are made: it is the lock as well, for it is there already
REFUSED = re.compile(r"[Tt]unnel.*failed|prohibited")  # what ssh says of a server that lets no tunnel begin
CONTROLLED = ("maglev", "endpoint")  # whose control sockets come over


class RackPlacer(Placer):  # type: ignore[misc]
    """Mininet's interface of `placement.place`."""

    def __init__(self, wiring: Wiring, **named: Any) -> None:
        super().__init__(**named)
        self._placed = place(wiring, self.servers)

    def place(self, node: str) -> str:
        """Returns a node's server."""
        return self._placed[node]


class Tunnel(RemoteLink):  # type: ignore[misc]
    """A link that may be one between servers."""

    def makeTunnel(self, node1: Any, node2: Any, *names: Any, **named: Any) -> Any:
        """Makes a tunnel; CannotStart, and nothing left of it, if the servers do not let it."""
        try:
            with _one_at_a_time():
                return super().makeTunnel(node1, node2, *names, **named)
        except LabError:
            raise
        except Exception as error:
            for node in (node1, node2):
                node.rcmd(f"ip link delete {TAP}")
            raise CannotStart(_reason(node1, node2, str(error))) from None


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Waits until no other lab that this machine starts makes a tunnel: all begin under the same name."""
    with open(TUN_DEVICE, "rb", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reason(node1: Any, node2: Any, said: str) -> str:
    """Returns why there is no tunnel between two nodes' servers, and what to do."""
    between = f"there is no tunnel between {node1.name} on {node1.server} and {node2.name} on {node2.server}"
    last = said.strip().rpartition("\n")[2].strip()
    advice = "set PermitTunnel yes in sshd_config there, and reload sshd: " if REFUSED.search(said) else ""
    return f"{between}: {advice}{last}"


class ClusterNet(Net, MininetCluster):  # type: ignore[misc]
    """`Net` over several servers; an agent on each that is not this machine."""

    def __init__(self, cluster: Sequence[Server], site: Site, topo: Topo, *told: Any) -> None:
        """`cluster` are the servers; the rest is what `Net` takes."""
        wiring = of_topo(topo)
        here = Server(HERE, user=cluster[0].user, ssh_config=cluster[0].ssh_config)
        self._where = {server.name: server for server in (*cluster, here)}
        self._placed = place(wiring, [server.name for server in cluster])
        for name, server in self._placed.items():
            placed(topo.nodeInfo(name)["cls"], server == HERE)  # or it cannot be there
        self._away: dict[str, Away] = {}
        options = {
            "servers": [server.name for server in cluster],
            "serverIP": {name: server.address for name, server in self._where.items()},
            "user": cluster[0].user,
            "placement": partial(RackPlacer, wiring),
            "link": Tunnel,
            "precheck": False,  # `checks` says more
        }
        with _home_at(site.directory):
            super().__init__(site, topo, *told, **options)
        self._wiring = wiring

    def build(self) -> None:
        """Starts an agent on each other server, and builds the network."""
        for number, server in enumerate(self._where.values(), 1):
            nodes = [name for name in self._wiring.names(*CONTROLLED) if self._placed[name] == server.name]
            if not server.is_here and server.name in self._placed.values():
                self._away[server.name] = Away(self._site, number, server, nodes)
        (self._site.directory / PLACED).write_text(json.dumps(self._placed), encoding="utf-8")
        super().build()

    def addHost(self, name: str, cls: Any = None, **params: Any) -> Any:
        where = self._where[self._placed[name]]
        for ours in ("server", "serverIP"):  # the placer's, in the words of the cluster edition
            params.pop(ours, None)
        away = self._away.get(where.name)
        return super().addHost(name, placed(cls, where.is_here), where=where, away=away, **params)

    def write_config(self, document: Mapping[str, Any]) -> None:
        """Writes the configuration here and on every other server."""
        super().write_config(document)
        text = (self._site.directory / CONFIG).read_text(encoding="utf-8")
        for away in self._away.values():
            away.do("write", name=CONFIG, text=text)

    def close(self) -> None:
        """Ends the agents, and with them all that is on other servers."""
        for away in self._away.values():
            away.close()
        self._away.clear()


class Cluster(Machines):
    """Where a lab is that is on several servers."""

    def __init__(self, names: Sequence[str] | str, ssh_config: Path | str | None) -> None:
        self._servers = parse(names, ssh_config)
        self.cluster = tuple(server.name for server in self._servers)

    def check(self) -> None:
        """Raises WrongUse, with what to do, for the first server that nodes cannot be put on."""
        with _one_at_a_time():  # or another lab's tunnel, half made, would count as left behind
            insist(self._servers)

    def network(self, *told: Any, **options: Any) -> Net:
        """Returns the network, not built yet."""
        return ClusterNet(self._servers, *told, **options)


@contextlib.contextmanager
def _home_at(directory: Path) -> Iterator[None]:
    """Has the cluster edition make its `~/.ssh/mn`, which it does not use, where it goes with the lab."""
    home = os.environ.get("HOME")
    os.environ["HOME"] = str(directory)
    try:
        yield
    finally:
        os.environ.pop("HOME")
        if home is not None:
            os.environ["HOME"] = home
