"""Captures: a tcpdump on every node, or on both ends of a link, that keeps its newest packets in a ring of files.

A capture is a directory: `NODE.pcap0`, `NODE.pcap1`, and `capture.json`, which says how the lab is wired and which ends
see nothing. `packets` merges them. Captures are of the interface `any`, whose header says which interface a packet was
seen at, and whether it was sent or received there.

tcpdump hands out packets in blocks, up to a second after they came. So before it is stopped, a frame of our own is sent
over each node's loopback: when that is in the file, all that came before it is as well.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from maglev.engine.control import ControlError, request

from . import namespace, wiring
from .crossings import Crossing, Sighting, Watched, merged, records, sighting
from .errors import LabError, WrongUse
from .site import Process, Site
from .waiting import wait_until
from .wiring import Wiring

if TYPE_CHECKING:
    from .laboratory import Lab

ABOUT = "capture.json"
BYTES_EACH = 180  # of a packet: all headers, outer and inner
FILES, FILE_MB = 2, 20  # the newest 40 MB a node
START_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 5.0
MARK_ETHERTYPE = 0x88B5  # IEEE 802: for local experiments
TAIL_BYTES = 1 << 18  # of a file, in which to look for the mark
TCPDUMP = ("tcpdump", "-n", "-U", "-Z", "root", "--time-stamp-precision=nano")
PAST_CAPTURES = "xdp"  # the engine that takes and sends packets where no capture sees them


@dataclass(frozen=True)
class Watch:
    """A node to watch, and the numbers of the interfaces that matter there: all, if there are none."""

    node: str
    pid: int
    interfaces: tuple[int, ...] = ()

    @property
    def filter(self) -> list[str]:
        """Returns tcpdump's expression for it; our own mark always passes."""
        if not self.interfaces:
            return []
        return [" or ".join([f"ether proto {MARK_ETHERTYPE}", *(f"ifindex {number}" for number in self.interfaces)])]


class Captures:
    """Captures that run, into a directory; a context manager that finishes them."""

    def __init__(self, site: Site, wires: Wiring, watches: Sequence[Watch], directory: Path) -> None:
        """Starts them; returns when every one sees packets. LabError for a directory that holds something already."""
        if directory.exists() and any(directory.iterdir()):
            raise WrongUse(f"{directory} is not empty: name a directory that is, or that is not there yet")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._site, self._wiring = directory, site, wires
        self._watches = {watch.node: watch for watch in watches}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for watch in watches:
                self._running[watch.node] = self._start(watch)
            wait_until(self._not_yet, START_TIMEOUT_S, "capturing")
        except BaseException:
            self._stop()
            raise
        self._since_ns = time.time_ns()
        self._interfaces = {node: interfaces(watch.pid) for node, watch in self._watches.items()}
        self.note()

    @classmethod
    def of(cls, lab: Lab, directory: Path, links: Sequence[str] = ()) -> Captures:
        """Starts capturing on all nodes of a lab, or on both ends of links; returns when every one sees packets."""
        pids = {node.name: node.pid for node in lab.net.hosts if node.is_here}
        for name in {end.node for link in map(lab.wiring.link, links) for end in link.ends} or lab.wiring.names():
            if name not in pids:
                raise WrongUse(f"{name} is on {lab.node(name).server}: only links within this machine are captured")
        return cls(lab.site, lab.wiring, watches(lab.wiring, pids, links), directory)

    def _start(self, watch: Watch) -> subprocess.Popen[bytes]:
        ring = ["-s", str(BYTES_EACH), "-C", str(FILE_MB), "-W", str(FILES)]
        command = [*TCPDUMP, "-i", "any", *ring, "-w", str(self.directory / f"{watch.node}.pcap"), *watch.filter]
        with open(self._log(watch.node), "wb") as log:
            return start_on(self._site, watch, command, stdout=log, stderr=log)

    def _log(self, node: str) -> Path:
        return self.directory / f"{node}.tcpdump"

    def _not_yet(self) -> str:
        for node, process in self._running.items():
            said = self._log(node).read_text()
            if process.poll() is not None:
                raise LabError(f"tcpdump on {node} has ended: {said.strip() or 'it said nothing'}")
            if "listening on" not in said:
                return f"tcpdump is not ready on {node}"
        return ""

    def note(self, until_ns: int | None = None) -> None:
        """Writes down what whoever reads the files has to know."""
        about = {
            "lab": self._site.id,
            "since_ns": self._since_ns,
            "until_ns": until_ns,
            "nodes": list(self._watches),
            "blind": blind(self._site, self._wiring),
            "interfaces": self._interfaces,
            "wiring": asdict(self._wiring),
        }
        (self.directory / ABOUT).write_text(json.dumps(about), encoding="utf-8")

    def finish(self) -> Path:
        """Ends capturing: every packet that was seen until now is in the files. Returns the directory."""
        if self._running:
            until_ns = time.time_ns()
            with contextlib.suppress(LabError):  # of nodes that have gone
                self._interfaces = {node: interfaces(watch.pid) for node, watch in self._watches.items()}
            self._flush()
            self._stop()
            self.note(until_ns)
        return self.directory

    def keep(self, place: Path) -> None:
        """Finishes, and moves the directory to `place`."""
        self.finish().replace(place)

    def discard(self) -> None:
        """Ends capturing, and keeps nothing."""
        self._stop()
        shutil.rmtree(self.directory)

    def _flush(self) -> None:
        mark = secrets.token_bytes(16)
        behind = [watch.node for watch in self._watches.values() if _send_mark(watch.pid, mark)]

        def missing() -> str:
            for node in tuple(behind):  # who was seen once is done: more packets hide the mark soon, where many come
                if self._running[node].poll() is not None or self._has(node, mark):
                    behind.remove(node)
            return f"tcpdump is behind on {', '.join(behind)}" if behind else ""

        wait_until(missing, FLUSH_TIMEOUT_S, "writing what was captured")

    def _has(self, node: str, mark: bytes) -> bool:
        return any(mark in _tail(path) for path in self.directory.glob(f"{node}.pcap*"))

    def _stop(self) -> None:
        running, self._running = self._running, {}
        for process in running.values():
            process.send_signal(signal.SIGINT)
        for process in running.values():
            process.wait(5)

    def __enter__(self) -> Captures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


def watches(wires: Wiring, pids: Mapping[str, int], links: Sequence[str] = ()) -> list[Watch]:
    """Returns what to watch for both ends of some links, or for all: WrongUse for a link that there is not."""
    if not links:
        return [Watch(node, pid) for node, pid in pids.items()]
    chosen: dict[str, set[str]] = {}
    for link in map(wires.link, links):
        for end in link.ends:
            chosen.setdefault(end.node, set()).add(end.interface)
    return [Watch(node, pids[node], _numbers(pids[node], names)) for node, names in chosen.items()]


def _numbers(pid: int, names: set[str]) -> tuple[int, ...]:
    return tuple(number for number, name in interfaces(pid).items() if name in names)


def interfaces(pid: int) -> dict[int, str]:
    return dict(namespace.within(pid, socket.if_nameindex))


def start_on(site: Site, watch: Watch, command: Sequence[str], **pipes: Any) -> subprocess.Popen[bytes]:
    """Starts a program on a node, out of reach of the terminal's Ctrl-C, with the lab's id and in its ledger."""
    process = subprocess.Popen(
        ["mnexec", "-da", str(watch.pid), *command], stdin=subprocess.DEVNULL, env=site.environment, **pipes
    )
    site.enter(Process.of(process.pid, f"{watch.node}: {command[0]}"))
    return process


def _send_mark(pid: int, mark: bytes) -> bool:
    """Sends a frame of our own over a node's loopback, past its filters; says whether that went."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as loopback:
            loopback.bind(("lo", 0))
            loopback.send(bytes(12) + MARK_ETHERTYPE.to_bytes(2, "big") + mark)

    try:
        namespace.within(pid, send)
    except (LabError, OSError):  # the node has gone, or was never set up
        return False
    return True


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read()


def blind(site: Site, wires: Wiring) -> list[str]:
    """Returns the Maglevs whose engine works where captures do not see."""
    return [name for name in wires.names("maglev") if _engine(site.directory / name / "control.sock") == PAST_CAPTURES]


def _engine(control: Path) -> str:
    try:
        return str(request(control, "GET", "/status")["engine"])
    except ControlError:
        return ""


# Reading


@dataclass(frozen=True)
class Recorded:
    """A capture's files, by node, and what is known of it."""

    files: Mapping[str, Sequence[Path]]
    watched: Watched
    interfaces: Mapping[str, Mapping[int, str]]


def recorded(paths: Sequence[Path]) -> Recorded:
    """Returns what captures in directories or single files hold; LabError for what cannot be read."""
    files = [file for path in paths for file in _files(path)]
    by_node: dict[str, list[Path]] = {}
    for file in files:
        by_node.setdefault(file.name.partition(".pcap")[0], []).append(file)
    about = next((found for file in files if (found := _about(file.parent / ABOUT))), None)
    if about is None:
        return Recorded(by_node, Watched(Wiring((), ()), ()), {})
    known = Watched(
        wiring.of_document(about["wiring"]),
        [node for node in about["nodes"] if node in by_node],
        about["blind"],
        about["since_ns"],
        about["until_ns"] or time.time_ns(),
    )
    numbered = {
        node: {int(number): name for number, name in each.items()} for node, each in about["interfaces"].items()
    }
    return Recorded(by_node, known, numbered)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.pcap*"))
    if not found:
        raise WrongUse(f"{path} holds no capture: there is no NODE.pcap in it")
    return found


def _about(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document


def packets(capture: Recorded) -> Iterator[Crossing]:
    """Yields every packet of a capture, merged over all nodes, in the order of time."""
    nodes = capture.files.items()
    return merged([_sightings(node, files, capture.interfaces.get(node, {})) for node, files in nodes], capture.watched)


def _sightings(node: str, files: Sequence[Path], interfaces: Mapping[int, str]) -> Iterator[Sighting]:
    """Yields what a node's ring of files shows, from the file that was begun first."""
    begun = sorted((begins, file) for file in files if (begins := _begins_ns(file)) is not None)
    for _, file in begun:
        with file.open("rb") as opened:
            seen = (sighting(frame, node, interfaces) for frame in records(opened, str(file)))
            yield from (each for each in seen if each is not None and each.ethertype != MARK_ETHERTYPE)


def _begins_ns(file: Path) -> int | None:
    """Returns the time of a file's first packet, None if there is none; LabError if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return next((frame.time_ns for frame in records(opened, str(file))), None)
    except OSError as error:
        raise LabError(f"cannot read {file}: {error.strerror}") from None
