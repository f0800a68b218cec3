"""`Lab`: a whole data centre in one machine, and everything that can be done to it."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.topo import Topo

import maglev.config
from maglev.config import Vip
from maglev.errors import ConfigError
from maglev.swap import VARIABLE as STUDENT

from . import convergence, interrupts, particulars, tcp_md5, timeline, wiring
from .capture import Captures
from .catalogue import load_topology, name_of
from .catalogue import topology_names as topology_names  # where others look for it
from .connections import Connections
from .errors import CannotStart, LabError, Lacking, NotInTime, WrongUse
from .faults.on_time import Faults
from .faults.registry import CONVERGE_TIMEOUT_S
from .moves import Moves
from .network import Net
from .nodes import CONFIG, LabNode, nursery_of
from .observation import Observation
from .site import Site
from .timeline import Timeline
from .trace import Journey, follow
from .traffic.costs import with_children
from .traffic.handle import Handle
from .traffic.kinds import Traffic
from .waiting import wait_until
from .whereabouts import machines

SERVERS = ("python", "nginx")


class Lab(Faults, Moves, Observation):
    """A running topology, named or in a file of one's own; a context manager. `options` are its own, as `maglevs=3`.

    `hash` is maglev, modulo, ring or rendezvous; `connection_table=False` switches the connection tables off. Both
    are there to show what Maglev saves one from. `servers` is what serves HTTP on the endpoints: python or nginx.
    `configure` may change the Maglevs' configuration before it is served. `student` has files whose functions
    stand in the place of a module's, named as the key: one of `maglev`, in all daemons of the lab, or of `lab.sdn`, in
    controllers. `pcap` names a directory for captures of all links, from the first packet on. `progress` is told, in a
    few words, what is done. `cluster` names the servers that nodes are put on, if not this one alone, and `ssh_config`
    a file for ssh to read in place of the user's (docs/cluster.md).
    """

    def __init__(
        self,
        topology: str = "rack",
        *,
        hash: str = "maglev",
        connection_table: bool = True,
        servers: str = "python",
        configure: Callable[[dict[str, Any]], None] = lambda document: None,
        student: Mapping[str, Path] | None = None,
        pcap: Path | str | None = None,
        progress: Callable[[str], None] = lambda text: None,
        cluster: Sequence[str] | str = (),
        ssh_config: Path | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.topology = name_of(topology)
        self._topo = load_topology(topology, options)
        self.wiring = wiring.of_topo(self._topo)
        self.document = copy.deepcopy(self._topo.cluster)
        self.document.setdefault("forwarder", {})
        self.document["forwarder"] |= {"hash": hash, "connection_table": {"enabled": connection_table}}
        if student:
            self.document["forwarder"]["engine"] = "socket"  # which decides by the reference: compiled code stays ours
        configure(self.document)
        if servers not in SERVERS:
            raise WrongUse(f"servers={servers!r} is not allowed; allowed: {', '.join(SERVERS)}")
        self._servers = servers
        self.config = self._validated(self.document)
        self._progress = progress
        self._net: Net | None = None
        self._site: Site | None = None
        self._pcap = Path(pcap).absolute() if pcap is not None else None
        self._captures: list[Captures] = []
        self._connections: list[Connections] = []
        self._traffic: list[Handle[Any]] = []  # of every other kind, which may still run
        self.timeline = Timeline()
        self._asked_for = {"topology": topology, "hash": hash, "connection_table": connection_table}
        self._asked_for |= tcp_md5.hidden(options)
        self._begin_registry()
        self._student = dict(student or {})
        self._machines = machines(cluster, ssh_config)
        if cluster and (pcap or student):
            raise WrongUse(
                "captures of all links, and a student's code, are for labs on one machine: leave out cluster"
            )
        self.start_s = 0.0

    @staticmethod
    def _validated(document: Mapping[str, Any]) -> maglev.config.Config:
        try:
            return maglev.config.parse(yaml.safe_dump(dict(document)), CONFIG)
        except ConfigError as error:
            raise WrongUse(str(error)) from None

    # Start and stop

    def start(self) -> Lab:
        """Builds the topology and waits until it has converged; leaves nothing behind if it cannot."""
        if os.geteuid() != 0:
            raise CannotStart("a lab makes network namespaces, which only root may do: run it with sudo")
        _check_namespaces()
        if not self._machines.cluster:  # of another server's programs its own nodes speak
            _check_programs(self._topo)
        self._machines.check()
        setLogLevel("error")
        started = time.monotonic()
        try:
            with interrupts.put_off():
                self._site = Site.create(self.topology)
            self._build(self._site)
            self.start_s = time.monotonic() - started
            self._tell_about_it()
        except BaseException:
            self.stop()
            raise
        return self

    def _build(self, site: Site) -> None:
        self.timeline.keep_in(site.directory / timeline.FILE)
        if self._student:
            site.variables[STUDENT] = ":".join(f"{name}={file}" for name, file in self._student.items())
        nursery_of(site)  # makes itself ready while nodes are wired
        self._progress("wiring nodes and starting daemons")
        self.wiring.write(site.directory / wiring.FILE)
        told = (site, self._topo, self._servers, self._capture_all, self.document)
        self._net = self._machines.network(*told)
        self._net.build()
        self._progress("waiting for BGP and health checks")
        self.wait_converged()
        for capture in self._captures:
            capture.note()  # now that forwarders say which engine they took

    def write_config(self, document: Mapping[str, Any]) -> None:
        """Writes the configuration of all Maglevs and endpoints, wherever they are."""
        self.net.write_config(document)

    def _tell_about_it(self) -> None:
        self.timeline.about(
            lab=self._asked_for,
            wiring=asdict(self.wiring),
            command=particulars.command(),
            versions=particulars.versions(),
            machine=particulars.machine(),
            start_s=round(self.start_s, 3),
        )

    def stop(self) -> None:
        """Takes everything away that this lab made; Ctrl-C, or an impatient second one, does not stop that."""
        with interrupts.passed_over():
            self._take_away()

    def _take_away(self) -> None:
        self._end_recordings()
        self._end_background()
        for capture in self._captures:
            with contextlib.suppress(LabError):  # what is not written yet is lost with it
                capture.finish()
        self._captures.clear()
        self._end_traffic()
        if self._net is not None:
            for node in self._net.hosts:
                node.terminate()
            self._net.close()
        if self._site is not None:
            self._site.clean()
        self._net = self._site = None

    def _end_traffic(self) -> None:
        """Ends all traffic that still runs, at once."""
        for running in (*self._connections, *self._traffic):
            running.abandon()
        self._connections.clear()
        self._traffic.clear()

    def leave_running(self) -> str:
        """Has the lab live on after this process, until `maglab clean ID`; returns its id. We let go of it."""
        site = self._running_site
        if self._machines.cluster:
            raise WrongUse("a lab on several servers ends with the process that built it: it cannot be left running")
        self._end_recordings()
        for node in self.net.hosts:
            node.outlive_owner()
        site.keep()
        self._net = self._site = None
        return site.id

    def __enter__(self) -> Lab:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Who is there

    @property
    def id(self) -> str:
        """Returns this lab's id, which everything that it started carries."""
        return self._running_site.id

    @property
    def directory(self) -> Path:
        """Returns where the nodes keep configurations, logs and control sockets."""
        return self._running_site.directory

    @property
    def site(self) -> Site:
        """Returns where this lab keeps what is its own."""
        return self._running_site

    @property
    def _running_site(self) -> Site:
        if self._site is None:
            raise LabError("the lab is not running: use it as a context manager, or call start()")
        return self._site

    @property
    def net(self) -> Mininet:
        """Returns the Mininet network itself."""
        if self._net is None:
            raise LabError("the lab is not running: use it as a context manager, or call start()")
        return self._net

    def node(self, name: str, *roles: str) -> Any:
        """Returns a node by name; WrongUse, naming those there are, if there is none with one of the roles."""
        allowed = {node.name: node for node in self.net.hosts if not roles or node.role in roles}
        if name not in allowed:
            raise WrongUse(f"there is no {' or '.join(roles) or 'node'} {name!r}; there are {', '.join(allowed)}")
        return allowed[name]

    def _of_role(self, role: str) -> list[Any]:
        return [node for node in self.net.hosts if node.role == role]

    @property
    def maglevs(self) -> list[str]:
        """Returns the Maglevs' names, in order."""
        return [node.name for node in self._of_role("maglev")]

    @property
    def endpoints(self) -> list[str]:
        """Returns the endpoints' names, in order."""
        return [node.name for node in self._of_role("endpoint")]

    @property
    def clients(self) -> list[str]:
        """Returns the clients' names, in order."""
        return [node.name for node in self._of_role("client")]

    def run(self, node: str, command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a shell command on a node; returns its exit status and what it printed."""
        target: LabNode = self.node(node)
        return target.run("sh", "-c", command, check=False, timeout_s=timeout_s)

    # Traffic

    def connections(
        self, count: int, vip: str = "echo", interval_s: float | None = None, replaces: bool = False
    ) -> Connections:
        """Opens `count` long-lived connections from all clients to a VIP; each sends a message every `interval_s`.

        Without that, the more there are the longer each rests. With `replaces` another is opened for each that breaks.
        """
        wanted = self.vip(vip)
        clients = self._of_role("client")
        told: dict[str, Any] = {
            "replaces": replaces,
            "timeline": self.timeline,
            "processes": self._serving_processes,
        }
        held = Connections(clients, str(wanted.address), wanted.port, count, interval_s, **told)
        self._connections.append(held)
        return held

    @property
    def traffic(self) -> Traffic:
        """Returns traffic of every other kind: HTTP, bulk, datagrams, crafted packets, floods, flow mixes."""
        return Traffic(self)

    def keep_traffic(self, handle: Handle[Any]) -> None:
        """Has `restore` and `stop` end traffic that still runs."""
        self._traffic.append(handle)

    def vip(self, name: str) -> Vip:
        """Returns a VIP by name, at the first of its addresses; WrongUse, naming those there are, if there is none."""
        wanted = next((vip for vip in self.config.placed_vips if vip.name == name), None)
        if wanted is None:
            raise WrongUse(f"there is no VIP {name!r}; there are {', '.join(vip.name for vip in self.config.vips)}")
        return wanted

    def _serving_processes(self) -> dict[str, list[int]]:
        """Returns the numbers of the processes that serve connections, by what they are."""
        daemons = {
            f"{role}s": [daemon.pid for node in self._of_role(role) if node.is_here for daemon in node.daemons.values()]
            for role in ("endpoint", "maglev")
        }
        return {role: with_children(pids) for role, pids in daemons.items()}

    def trace(self, client: str, vip: str = "www", **options: Any) -> Journey:
        """Sends a packet that says "trace me" from a client to a VIP, and returns its way; `trace.follow` has more."""
        self.node(client, "client")
        if away := next((node for node in self.net.hosts if not node.is_here), None):
            raise WrongUse(f"{away.name} is on {away.server}: packets are traced by one clock, in labs on one machine")
        nodes = {node.name: partial(node.run, check=False) for node in self.net.hosts}
        return follow(nodes, self.config, client, vip, **options)

    # Captures

    def capture(self, directory: Path | str, *links: str) -> Captures:
        """Captures both ends of links, or all links, into a directory until the lab stops; or as a context manager."""
        captures = Captures.of(self, Path(directory).absolute(), links)
        self._captures.append(captures)
        return captures

    def _capture_all(self) -> None:
        if self._pcap is not None:
            self.capture(self._pcap)

    # Convergence

    def wait_converged(self, timeout_s: float = CONVERGE_TIMEOUT_S) -> float:
        """Waits until routers and Maglevs agree with what was done to the lab; returns seconds since the last change.

        Converged means: every router's kernel spreads every VIP over exactly the Maglevs in service that announce it,
        BFD watches every session between routers, and all these Maglevs are ready, find exactly the living endpoints
        healthy, and have built the same lookup tables.
        Where flap damping holds down an endpoint that has come and gone too often, that time comes on top.
        """
        try:
            wait_until(self._not_converged, timeout_s, "convergence")
        except NotInTime:
            held_s = convergence.held_down_s(self._of_role("maglev"))
            if not held_s:
                raise
            wait_until(self._not_converged, held_s + timeout_s, "convergence, an endpoint being held down at first")
        return time.monotonic() - self._changed_at

    def _not_converged(self) -> str:
        vips: dict[str, set[str]] = {}
        backing: dict[str, list[set[str]]] = {}
        for vip in self.config.placed_vips:
            address = str(vip.network).removesuffix(f"/{vip.network.max_prefixlen}")
            announcing = {each.name for each in self.config.maglevs if each.shard in vip.announced_by}
            vips[address] = vips.get(address, set()) | announcing  # anycast has several shards
            backing.setdefault(address, []).append({str(each.address) for each in self.config.vip_members(vip)})
        return convergence.missing(self.net.hosts, convergence.Expected(vips, self.expected, backing))


def _check_programs(topo: Topo) -> None:
    """Raises Lacking for a topology some of whose nodes need what this machine does not have."""
    for cls in dict.fromkeys(topo.nodeInfo(node)["cls"] for node in topo.nodes()):
        if lacks := cls.lacking():
            raise Lacking(lacks)


def _check_namespaces() -> None:
    """Raises CannotStart where Mininet could not make a node's namespaces: it would wait for its shell for ever."""
    try:
        tried = subprocess.run(["mnexec", "-n", "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotStart("Mininet's mnexec is not installed: run make setup") from None
    if tried.returncode != 0:
        raise CannotStart(
            f"this machine does not let Mininet make namespaces: {tried.stderr.strip()}; see maglab doctor"
        )
