"""The bench's programs in C and BPF, compiled when they are first needed, and again when a source changes.

Their sources lie in tests/bench; what is compiled lies beside the virtual environment's own files, for this machine
alone (-march=native), and goes with it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from ..errors import CannotStart

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "bench"
CACHE = ROOT / ".venv" / "bench"
WARNINGS = ("-Wall", "-Wextra")
C_FLAGS = ("-std=gnu11", "-O3", "-march=native", *WARNINGS)
BPF_FLAGS = ("-O2", "-g", "-target", "bpf", *WARNINGS)
LIBRARIES = {"af_xdp.c": ("-lbpf",), "kernel_xdp.c": ("-lbpf",), "traffic.c": ("-lbpf", "-pthread")}


def compiled(source: str, *flags: str) -> Path:
    """Returns the program made from ring.c, traffic.bpf.c or another source; CannotStart if it does not compile."""
    command = _command(source, flags)
    target = CACHE / _digest(command) / source.removesuffix(".c")
    if not target.exists():
        _compile(command, target)
    return target


def _command(source: str, flags: tuple[str, ...]) -> list[str]:
    path = str(SOURCES / source)
    if source.endswith(".bpf.c"):
        # clang for BPF does not look where Debian keeps the headers of this machine's kind.
        headers = f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
        return ["clang", *BPF_FLAGS, *flags, headers, "-c", path]
    return ["gcc", *C_FLAGS, *flags, path, *LIBRARIES.get(source, ())]


def _digest(command: list[str]) -> str:
    """Returns a name for all sources as they are and the way of compiling: another when either changes."""
    digest = hashlib.sha256(repr(command).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command: list[str], target: Path) -> None:
    """Compiles aside and moves the result into its place, so that two benches can do it at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        done = subprocess.run([*command, "-o", f"{aside}/new"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotStart(f"{target.name} does not compile: {' '.join(done.stderr.split()[:60])}")
        os.replace(f"{aside}/new", target)
