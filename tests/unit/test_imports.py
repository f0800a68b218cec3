"""Imports point one way: maglev <- lab <- topologies <- exercises <- tests; and the pure modules of maglev do no I/O.

The sources are parsed, not run: an import inside a function counts like one at the top.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from maglev import kept

ROOT = Path(__file__).parents[2]
ROOMS = ("maglev", "lab", "topologies", "exercises", "tests")  # each may import itself and what stands before it

# What moves packets, and the processes around it. Every other module of maglev is pure.
IMPURE_MODULES = {
    "__main__", "cli", "controller", "endpoint", "engine", "forwarder", "nameserver", "nursery", "replay", "swap",
    "tracer",
}  # fmt: skip
IMPURE_LIBRARIES = {
    "asyncio", "fcntl", "logging", "mmap", "multiprocessing", "os", "pyroute2", "random", "secrets", "select",
    "selectors", "signal", "socket", "socketserver", "subprocess", "threading", "time",
}  # fmt: skip
LABORATORY_LIBRARIES = {"mininet", "pytest"}  # a real load balancer would run without these


def sources(room: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py"))


def imports(source: str, path: Path) -> Iterator[str]:
    """Yield the dotted names that `source`, at `path` from the root, imports: `a.b` for `from a import b`."""
    package = path.parent.parts
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                above = package[: len(package) - node.level + 1] if node.level else ()
                prefix = [*above, *(node.module.split(".") if node.module else [])]
                yield from (".".join([*prefix, alias.name]) for alias in node.names)
            case ast.Call(func=ast.Name(id="__import__") | ast.Attribute(attr="import_module"), args=[first, *_]):
                if isinstance(first, ast.Constant):
                    yield str(first.value)


def is_pure(path: Path) -> bool:
    return path.parts[0] == "maglev" and path.with_suffix("").parts[1] not in IMPURE_MODULES


def offence(path: Path, name: str) -> str | None:
    """Return what is wrong with `path` importing `name`, or None."""
    room, first, *rest = path.parts[0], *name.split(".")
    if first in ROOMS and ROOMS.index(first) > ROOMS.index(room):
        return f"{path} imports {name}: {room} may not know {first}"
    if room == "maglev" and first in LABORATORY_LIBRARIES:
        return f"{path} imports {name}: a load balancer has no use for it"
    if is_pure(path) and first in IMPURE_LIBRARIES:
        return f"{path} imports {name}: it is a pure module; what it does with {first} belongs into maglev/engine"
    if is_pure(path) and first == "maglev" and rest and rest[0] in IMPURE_MODULES:
        return f"{path} imports {name}: a pure module may not know what does I/O"
    return None


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    offences = [
        found
        for path in sources(room)
        for name in imports((ROOT / path).read_text(), path)
        if (found := offence(path, name))
    ]
    assert not offences, "\n".join(offences)


def test_there_is_something_to_check() -> None:
    pure = {path.stem for path in sources("maglev") if is_pure(path)}
    assert {"flow", "config", "packets", "gre", "hashing", "conntrack", "fragments", "icmp", "limits"} <= pure
    assert {"vips", "selection", "health", "forwarding"} <= pure
    assert {path.parts[0] for room in ROOMS for path in sources(room)} >= {"maglev", "lab", "topologies", "tests"}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("maglev/forwarder.py", "import lab"),
        ("maglev/forwarder.py", "def f():\n    from lab.observe import snapshot"),
        ("maglev/engine/socket.py", "from mininet.net import Mininet"),
        ("maglev/engine/socket.py", "from ...lab import observe"),
        ("lab/laboratory.py", "from topologies.rack import RackTopo"),
        ("lab/laboratory.py", "importlib.import_module('topologies.rack')"),
        ("topologies/rack.py", "from tests import frames"),
        ("maglev/conntrack.py", "from time import monotonic"),
        ("maglev/conntrack.py", "import os.path"),
        ("maglev/fast/conntrack.py", "import mmap"),
        ("maglev/fragments.py", "import time"),
        ("maglev/icmp.py", "import socket"),
        ("maglev/limits.py", "from time import monotonic"),
        ("maglev/forwarding.py", "from .engine import socket"),
        ("maglev/forwarding.py", "from . import engine"),
        ("maglev/forwarding.py", "from maglev.engine.pcap import read"),
        ("maglev/config.py", "import maglev.forwarder"),
    ],
)
def test_forbidden_import_is_found(path: str, line: str) -> None:
    assert any(offence(Path(path), name) for name in imports(line, Path(path)))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("lab/laboratory.py", "from maglev.config import load"),
        ("topologies/rack.py", "import lab"),
        ("maglev/engine/socket.py", "import socket\nfrom ..forwarding import Forwarder"),
        ("maglev/forwarder.py", "from .engine import socket as socket_engine"),
        ("maglev/config.py", "from pathlib import Path\nfrom . import errors"),
    ],
)
def test_allowed_import_is_left_alone(path: str, line: str) -> None:
    assert not [offence(Path(path), name) for name in imports(line, Path(path)) if offence(Path(path), name)]


def test_machine_code_is_kept_by_all_the_sources_that_it_is_made_of() -> None:
    """A module that compiles, or from which one that compiles takes a name, must be among `kept.SOURCES`."""
    listed = {path.relative_to(ROOT) for pattern in kept.SOURCES for path in (ROOT / "maglev").glob(pattern)}
    compiling = {path for path in sources("maglev") if "compiled." in "".join(imports((ROOT / path).read_text(), path))}
    assert compiling <= listed | {Path("maglev/engine/rehearsal.py")}, compiling - listed
    assert len(compiling) > 8
