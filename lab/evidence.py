"""What is kept of a lab when a test fails: logs, routes and tables of every node; `capture` has the packets."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from .errors import LabError
from .laboratory import Lab

COMMANDS = {
    "addresses": ("ip", "-d", "address"),
    "routes": ("ip", "route", "show", "table", "all"),
    "neighbours": ("ip", "neighbour"),
    "counters": ("ip", "-s", "link"),
    "nftables": ("nft", "list", "ruleset"),
    "sockets": ("ss", "-tanp"),
    "processes": ("ps", "-eo", "pid,stat,args"),
}


def keep(lab: Lab, directory: Path) -> None:
    """Writes a running lab's logs, configurations, routes, tables and snapshot into `directory`; no passwords."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copytree(lab.directory, directory / "nodes", dirs_exist_ok=True, ignore=_not_files)
    for node in lab.net.hosts:
        if not node.is_here:
            for name, text in node.files().items():
                (directory / "nodes" / node.name / name).write_text(text)
        _take_out(node.bgp_password, directory / "nodes" / node.name)
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


def _take_out(password: str, directory: Path) -> None:
    for file in directory.glob("*.conf") if password else ():
        file.write_text(file.read_text().replace(password, "(bgp_password)"))


def _not_files(directory: str, names: list[str]) -> list[str]:
    """Names what is no regular file: control sockets cannot be copied."""
    return [name for name in names if not (Path(directory) / name).is_file() and not (Path(directory) / name).is_dir()]
