"""`maglab simulate`: connections and changes in numbers that no machine can emulate, once or for many values."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from typing import Any

from rich.table import Table

from .errors import WrongUse
from .simulation import Change, Cluster, churn, run

COLUMNS = ("changes", "moved", "expected_moved", "broken", "doomed", "changed_slots", "unrecorded")


def parse_steps(texts: Sequence[str]) -> list[list[Change]]:
    """Returns steps from what was typed: each has changes that happen at once, parted by commas."""
    return [[Change.parse(change.strip()) for change in text.split(",")] for text in texts]


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """Returns a field of `Cluster` and the values that it is to have, from NAME=VALUE,VALUE,…"""
    name, _, values = text.partition("=")
    kinds = {field.name: field.type for field in fields(Cluster) if field.name != "without"}
    name = name.replace("-", "_")
    if name not in kinds or not values:
        raise WrongUse(f"--sweep {text!r} is not allowed; allowed: NAME=VALUE,VALUE,… with {', '.join(kinds)}")
    try:
        return name, [value if kinds[name] == "str" else int(value) for value in values.split(",")]
    except ValueError:
        raise WrongUse(f"--sweep {text!r} is not allowed; allowed: whole numbers") from None


def clusters(base: Cluster, sweeps: Mapping[str, Sequence[Any]]) -> list[Cluster]:
    """Returns a cluster for every combination of the values swept over."""
    combinations = itertools.product(*sweeps.values())
    return [replace(base, **dict(zip(sweeps, values, strict=True))) for values in combinations]


def simulate(cluster: Cluster, steps: Sequence[Sequence[Change]], events: int) -> dict[str, Any]:
    """Simulates steps, and then so many random changes."""
    return run(cluster, [*steps, *churn(cluster, events)])


def simulate_all(
    chosen: Sequence[Cluster],
    steps: Sequence[Sequence[Change]],
    events: int,
    jobs: int | None = None,
    dask: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields what came of each cluster, in order: in processes of this machine, or on a Dask cluster."""
    if dask is not None:
        yield from _on_dask(dask, chosen, steps, events)
    elif len(chosen) == 1 or jobs == 1:
        yield from (simulate(cluster, steps, events) for cluster in chosen)
    else:
        with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
            yield from pool.map(_job, [(cluster, steps, events) for cluster in chosen])


def _job(work: tuple[Cluster, Sequence[Sequence[Change]], int]) -> dict[str, Any]:
    return simulate(*work)


def _on_dask(
    address: str, chosen: Sequence[Cluster], steps: Sequence[Sequence[Change]], events: int
) -> Iterator[dict[str, Any]]:
    try:
        from dask.distributed import Client
    except ImportError:
        raise WrongUse(
            "--dask needs Dask: .venv/bin/pip install 'dask[distributed]', here and on its workers"
        ) from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise WrongUse(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield from client.gather(client.map(_job, [(cluster, steps, events) for cluster in chosen]))


def table_of(document: Mapping[str, Any]) -> Table:
    """Returns what every change did."""
    table = Table(box=None)
    for column in COLUMNS:
        table.add_column(column.replace("_", " "), justify="left" if column == "changes" else "right")
    for outcome in document["outcomes"]:
        table.add_row(*(_shown(outcome[column]) for column in COLUMNS))
    return table


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}" if value < 1 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table_of_sweep(documents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """Returns a line for each cluster: what it was swept over, and what became of its connections."""
    table = Table(box=None)
    for column in (*names, "moved", "broken", "doomed", "broken, %", "seconds"):
        table.add_column(column.replace("_", " "), justify="right")
    for document in documents:
        cluster = [str(document["cluster"][name]) for name in names]
        counts = [f"{document[name]:,}" for name in ("moved", "broken", "doomed")]
        table.add_row(*cluster, *counts, f"{100 * document['broken_share']:.3f}", f"{document['seconds']:.1f}")
    return table


def command(
    base: Cluster,
    steps: Sequence[str],
    events: int,
    sweep: Sequence[str],
    jobs: int | None,
    dask: str | None,
    show: Callable[[Any], None],
) -> list[dict[str, Any]]:
    """Simulates what was typed, shows it, and returns the documents."""
    if not steps and not events:
        raise WrongUse('nothing changes: name steps, such as "add s4" "kill m1, kill s2", or give --churn 100')
    chosen = clusters(base, dict(map(parse_sweep, sweep)))
    parsed = parse_steps(steps)
    documents = list(simulate_all(chosen, parsed, events, jobs, dask))
    if len(documents) == 1:
        show(table_of(documents[0]))
        moved, broken, doomed = (f"{documents[0][name]:,}" for name in ("moved", "broken", "doomed"))
        show(f"{moved} moved, {broken} broke, {doomed} had to die; {documents[0]['seconds']:.1f} s")
    else:
        show(table_of_sweep(documents, [parse_sweep(text)[0] for text in sweep]))
    return documents
