"""What a server has for a cluster's nodes, asked there: run as a file, it prints that as a JSON document.

It says what it can where something is missing. So it is no module of a package that needs Mininet, and imports the lab
only after it has looked for that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import socket
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("maglev", "lab", "topologies")
TAP = "tap9"  # the name under which Mininet makes each end of a tunnel
COMPARED = ("python", "mininet", "bird")  # versions that are better the same everywhere


def digest() -> str:
    """Returns what changes with any of the project's sources."""
    total = hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def gather() -> dict[str, Any]:
    """Returns what is there: programs, the project's digest, versions, whether a tunnel can begin."""
    has_mininet = _has("mininet.examples.cluster") and shutil.which("mnexec") is not None
    found: dict[str, Any] = {"mininet": has_mininet, "bird": shutil.which("bird") is not None, "project": digest()}
    found["tap"] = TAP in [name for _, name in socket.if_nameindex()]
    if has_mininet:
        from lab.particulars import versions

        found["versions"] = {name: version for name, version in versions().items() if name in COMPARED}
    return found


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it is in
        return False


if __name__ == "__main__":
    print(json.dumps(gather()))
