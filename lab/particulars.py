"""A run's particulars: what was built, of what, and on what; whoever has them can repeat the run."""

from __future__ import annotations

import os
import platform
import subprocess
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .nodes import ROOT

PACKAGES = ("exabgp", "mininet", "numba", "numpy", "pyroute2", "scapy")


@cache
def versions() -> dict[str, str]:
    """Returns the versions of the project and of what it runs with, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = {"maglev-lab": project, "python": platform.python_version(), "linux": platform.release()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    bird = subprocess.run(["bird", "--version"], capture_output=True, text=True, check=False)
    return found | {"bird": (bird.stdout + bird.stderr).strip().rpartition(" ")[2]}


@cache
def machine() -> str:
    """Returns what the lab runs on, in a few words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


def wiring(nodes: Iterable[Any]) -> dict[str, Any]:
    """Returns who there is, with role and addresses, and which two each link joins."""
    everybody = list(nodes)
    ends = {tuple(sorted((own.node.name, other.node.name))) for node in everybody for own, other in _links(node)}
    return {
        "nodes": {node.name: {"role": node.role, "addresses": list(node.addresses.values())} for node in everybody},
        "links": sorted(map(list, ends)),
    }


def _links(node: Any) -> list[tuple[Any, Any]]:
    links = [interface.link for interface in node.intfList() if interface.link]
    return [(link.intf1, link.intf2) for link in links]
