"""Another user, for students' code to run as: one who may read what others may, and write nothing of anybody's.

Numba loads kept machine code only from where it could write some (`maglev.kept`). So this user has a copy, which nobody
else loads: whoever can write machine code decides what those do who load it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maglev import kept


@dataclass(frozen=True)
class Account:
    """A user, and where that user's machine code is kept."""

    name: str
    machine_code: Path

    @property
    def options(self) -> dict[str, Any]:
        """Returns what has a process run as this user, and in no group but the user's own."""
        return {"user": self.name, "group": pwd.getpwnam(self.name).pw_gid, "extra_groups": []}

    @property
    def environment(self) -> dict[str, str]:
        """Returns what the process has to know."""
        return {"NUMBA_CACHE_DIR": str(self.machine_code)}


@contextmanager
def account_of(name: str) -> Iterator[Account]:
    """Has the machine code that there is copied for a user, for as long as a `with` lasts; root's to call."""
    with tempfile.TemporaryDirectory(prefix="machine-code-") as directory:
        place = Path(directory)
        if kept.directory().is_dir():
            shutil.copytree(kept.directory(), place, dirs_exist_ok=True)
        for path in (place, *place.rglob("*")):
            shutil.chown(path, name)
        os.chmod(place, 0o700)
        yield Account(name, place)
