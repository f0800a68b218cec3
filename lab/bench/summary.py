"""From runs to rows: medians, ratios, documents. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .measure import Run
from .yardsticks import LIMITS

Row = dict[str, Any]


def row_of(engine: str, runs_by_variant: Mapping[str, Sequence[Run]]) -> Row:
    """Returns an engine's row: that of its best variant, and all variants beside it if there are several."""
    variants = [_variant_row(variant, runs) for variant, runs in runs_by_variant.items()]
    best = max(variants, key=lambda row: row["pps"])
    return {"engine": engine, **best} | ({"variants": variants} if len(variants) > 1 else {})


def _variant_row(variant: str, runs: Sequence[Run]) -> Row:
    """Returns medians over runs; each of its own, so they need not all be of the same run."""

    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    return {
        "variant": variant,
        "pps": round(median(run.pps for run in runs)),
        "runs": [round(run.pps) for run in runs],
        "offered_pps": round(median(run.offered_pps for run in runs)),
        "loss": round(median(run.loss for run in runs), 6),
        "ns_per_packet": round(median(run.ns_per_packet for run in runs), 1),
        "cpu": {
            "generator": round(median(run.generator_cpu for run in runs), 3),
            "forwarder": round(median(run.forwarder_cpu for run in runs), 3),
        },
    }


def rated(share: float, rate: float, runs: Sequence[Run]) -> Row:
    """Returns what became of a rate that is a share of an engine's maximum."""
    return {
        "share": share,
        "rate_pps": round(rate),
        "offered_pps": round(statistics.median(run.offered_pps for run in runs)),
        "loss_per_mille": round(1e3 * statistics.median(run.loss for run in runs), 3),
        "runs": [round(1e3 * run.loss, 3) for run in runs],
    }


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows, each with its ratio to every limit that was measured."""
    limits = {row["engine"]: row["pps"] for row in rows if row["engine"] in LIMITS and row["pps"]}
    return [row | {"ratios": {name: round(row["pps"] / pps, 3) for name, pps in limits.items()}} for row in rows]
