"""A leaderboard: what checks have measured of a student's attempts, a row each, beside the reference."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from ..errors import WrongUse

FILE = "leaderboard.csv"  # beside the solution; of a whole class: these files, one after another
REFERENCE = "maglev"
WHO = "solution"  # the column that says whose row it is: the first digits of the solution's SHA-256
DIGITS = 8

Row = dict[str, str]


def keep(solution: Path, measured: Mapping[str, tuple[float, float]]) -> Path:
    """Writes what was measured of a solution; a row of the same solution gives way. Returns the file."""
    path = solution.with_name(FILE)
    digest = sha256(solution.read_bytes()).hexdigest()[:DIGITS]
    mine = {WHO: digest} | {name: f"{value:.4g}" for name, (value, _) in measured.items()}
    theirs = {WHO: REFERENCE} | {name: f"{reference:.4g}" for name, (_, reference) in measured.items()}
    others = [row for row in _read(path) if row.get(WHO) not in (digest, REFERENCE)]
    try:
        _write(path, [theirs, *others, mine])
    except OSError as error:
        raise WrongUse(f"cannot write {path}: {error.strerror}") from None
    return path


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    aside = path.with_suffix(".new")
    with open(aside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    aside.replace(path)
