"""A run's particulars: what was built, of what, and on what; whoever has them can repeat the run."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .nodes import ROOT

SECRET = re.compile(r"(\bbgp_password=).+")
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


def command() -> str:
    """Returns how this process was started; not with which password."""
    return shlex.join([Path(sys.argv[0]).name, *(SECRET.sub(r"\1(not shown)", word) for word in sys.argv[1:])])


def machine() -> str:
    """Returns what the lab runs on, in a few words."""
    return f"{processor()}, {os.cpu_count()} cores, Linux {platform.release()}"


def processor() -> str:
    """Returns what the machine's processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
