"""Where the machine code of `compiled` is kept, and whether it is all there.

Numba keeps a function's machine code until the file that the function stands in changes. It does not look at the
files of those that the function calls, so the code is kept in a directory named after all sources that it is made of.

`python -m maglev.kept` ends with 0 if nobody has to wait for the compiler, and with 1 otherwise: only the standard
library, so that set-up may ask every time.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from hashlib import blake2b
from pathlib import Path

PACKAGE = Path(__file__).parent
KEPT = PACKAGE / "__pycache__"
SOURCES = (  # what is compiled, and where it has its constants from
    "fast/*.py", "engine/af_xdp.py", "engine/machine_code.py", "engine/packet_thread.py", "engine/ring.py",
    "engine/xdp.py", "baselines.py", "compiled.py", "conntrack.py", "errors.py", "flow.py", "gre.py", "hashing.py",
    "packets.py", "trace.py",
)  # fmt: skip
MARK = "whole"  # a file of the directory, written last
ABOUT_PROCESSORS = Path("/proc/cpuinfo")
KIND_OF_PROCESSOR = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # proc(5), on x86_64 and aarch64


def fingerprint(checked: bool) -> str:
    """Returns what the machine code depends on, besides the processor: its sources, and whether it checks accesses."""
    digest = blake2b(bytes([checked]), digest_size=8)
    for path in sorted(path for pattern in SOURCES for path in PACKAGE.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def directory(checked: bool = False) -> Path:
    """Returns where the machine code of the sources as they are is kept."""
    return KEPT / f"compiled-{fingerprint(checked)}"


def for_this_user(checked: bool = False) -> Path:
    """Returns where this user's processes keep their machine code.

    Numba takes nothing from where it may write nothing. So who may not write where set-up has kept the code gets a copy
    of it in a cache of the user's own, made once; who cannot have one gets the place itself, and compiles every time.
    """
    place = directory(checked)
    if _may_write(place):
        return place
    own = Path("~/.cache/maglev-lab").expanduser() / place.name
    if not is_whole(own) and is_whole(place):
        with contextlib.suppress(OSError):
            _copy(place, own)
    return own if is_whole(own) else place


def _may_write(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _copy(place: Path, own: Path) -> None:
    """Copies a directory in one step: others of this user's processes may be about to do the same."""
    own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=own.parent) as unfinished:
        copy = Path(unfinished, own.name)
        shutil.copytree(place, copy)
        copy.rename(own)


def processor() -> str:
    """Returns what tells this machine's kind of processor from others, for which there is other machine code."""
    first = ABOUT_PROCESSORS.read_text().partition("\n\n")[0].splitlines()
    return "\n".join(line for line in first if line.startswith(KIND_OF_PROCESSOR))


def mark_whole(place: Path) -> None:
    """Notes that the machine code in a directory is complete; without effect where nothing can be written."""
    with contextlib.suppress(OSError):
        (place / MARK).write_text(processor())


def is_whole(place: Path) -> bool:
    """Says whether a directory has all machine code, and for this processor."""
    try:
        return (place / MARK).read_text() == processor()
    except OSError:
        return False


def forget_others(place: Path) -> None:
    """Removes machine code of other versions of the sources: for set-up, not while forwarders run."""
    for other in KEPT.glob("compiled-*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(not is_whole(directory()))
