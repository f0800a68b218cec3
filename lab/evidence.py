"""What is kept of a lab when a test fails: logs, routes, tables and a capture of every node."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
from pathlib import Path

from .errors import LabError
from .laboratory import Lab
from .waiting import wait_until

CAPTURE_BYTES_EACH = 160  # of a packet: all headers, outer and inner
CAPTURE_FILES, CAPTURE_FILE_MB = 2, 20  # the newest 40 MB a node
START_TIMEOUT_S = 10.0
COMMANDS = {
    "addresses": ("ip", "-d", "address"),
    "routes": ("ip", "route", "show", "table", "all"),
    "neighbours": ("ip", "neighbour"),
    "counters": ("ip", "-s", "link"),
    "nftables": ("nft", "list", "ruleset"),
    "sockets": ("ss", "-tanp"),
    "processes": ("ps", "-eo", "pid,stat,args"),
}


class Captures:
    """A tcpdump on every node, which keeps its newest packets in a ring of files."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        """Starts capturing into `directory`; returns when every node does."""
        self._directory = directory
        directory.mkdir(parents=True)
        self._running = {node.name: self._start(node) for node in lab.net.hosts}
        wait_until(self._not_yet, START_TIMEOUT_S, "capturing")

    def _start(self, node: object) -> subprocess.Popen[bytes]:
        name = node.name  # type: ignore[attr-defined]
        command = ["tcpdump", "-i", "any", "-n", "-U", "-Z", "root", "-s", str(CAPTURE_BYTES_EACH)]
        command += ["-C", str(CAPTURE_FILE_MB), "-W", str(CAPTURE_FILES), "-w", str(self._directory / f"{name}.pcap")]
        with open(self._directory / f"{name}.tcpdump", "wb") as log:
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            process: subprocess.Popen[bytes] = node.popen(command, **pipes)  # type: ignore[attr-defined]
            return process

    def _not_yet(self) -> str:
        logs = {name: self._directory / f"{name}.tcpdump" for name in self._running}
        silent = [name for name, log in logs.items() if "listening on" not in log.read_text()]
        return f"tcpdump is not ready on {', '.join(silent)}" if silent else ""

    def keep(self, place: Path) -> None:
        """Ends capturing, and moves the files to `place`: every packet that was seen is in them."""
        self._stop()
        self._directory.replace(place)

    def _stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
        for process in self._running.values():
            process.wait(5)

    def discard(self) -> None:
        """Ends capturing, and keeps nothing."""
        self._stop()
        shutil.rmtree(self._directory)


def keep(lab: Lab, directory: Path) -> None:
    """Writes a running lab's logs, configurations, routes, tables and snapshot into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copytree(lab.directory, directory / "nodes", dirs_exist_ok=True, ignore=_not_files)
    for node in lab.net.hosts:
        place = directory / "nodes" / node.name
        for name, command in COMMANDS.items():
            (place / f"{name}.txt").write_text(node.run(*command, check=False).stdout)
        if node.role == "router":
            (place / "router.txt").write_text(node.evidence())
    try:
        snapshot = json.dumps(dataclasses.asdict(lab.snapshot()), indent=2)
    except LabError as error:
        snapshot = f"no snapshot: {error}"
    (directory / "snapshot.json").write_text(snapshot)


def _not_files(directory: str, names: list[str]) -> list[str]:
    """Names what is no regular file: control sockets cannot be copied."""
    return [name for name in names if not (Path(directory) / name).is_file() and not (Path(directory) / name).is_dir()]
