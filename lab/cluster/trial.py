"""`maglab doctor --cluster`: what each server has, and a tunnel to each, made as a lab makes it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from mininet.log import setLogLevel
from mininet.topo import Topo

from ..errors import LabError
from ..finding import Finding
from ..nodes import Client, Router
from ..site import Site
from . import checks
from .network import ClusterNet
from .placement import HERE
from .servers import Server

ADDRESSES = ("198.18.0.1", "198.18.0.2")  # for trials like this (RFC 2544)
LARGEST_PING_BYTES = 1572  # with its headers 1,600 bytes, as much as a lab's links carry


class _Pair(Topo):  # type: ignore[misc]
    """A client, which is always here, and a router on the first server, in whose shadow it stands."""

    def build(self) -> None:
        self.addHost("c1", cls=Client)
        self.addHost("r1", cls=Router)
        ends = [{"address": f"{address}/30", "mtu": LARGEST_PING_BYTES + 28} for address in ADDRESSES]
        self.addLink("c1", "r1", params1=ends[0], params2=ends[1])


def examine(servers: Sequence[Server]) -> Iterator[Finding]:
    """Yields what was found on each server, and, where nothing needed is missing, whether tunnels to it work."""
    fit = True
    for finding in checks.examine(servers):
        fit &= finding.found or not finding.needed
        yield finding
    if fit and os.geteuid() == 0:
        setLogLevel("error")
        yield from (_tunnel(server) for server in servers if server.name != HERE)


def _tunnel(server: Server) -> Finding:
    """Returns whether packets as large as a lab's come back from a node on a server."""
    site = Site.create("trial")
    net = ClusterNet([server], site, _Pair(), "python", lambda: None, {})
    try:
        net.build()
        ping = ["ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(LARGEST_PING_BYTES), ADDRESSES[1]]
        passed = net.nameToNode["c1"].run(*ping, check=False).returncode == 0
        follows = "carries 1,600 bytes" if passed else "no packet comes back: look at that server's firewall"
    except LabError as error:
        passed, follows = False, str(error)
    finally:
        for node in net.hosts:
            node.terminate()
        net.close()
        site.clean()
    return Finding(f"{server.name}: tunnel", passed, True, follows)
