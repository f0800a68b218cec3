"""Draws what was predicted and measured: four panels, one a protection, a bar and a mark for each event."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from .rows import Row

SIZE_INCHES = (9.0, 5.5)
HATCHES = ("", "///")  # without a connection table, and with one: no colour is needed


def draw(rows: Sequence[Row], file: Path) -> None:
    """Writes the chart to a file, in the format that its name ends with."""
    with rc_context({"svg.hashsalt": file.stem, "svg.fonttype": "none"}):  # the same numbers, the same file
        drawn(rows).savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def drawn(rows: Sequence[Row]) -> Figure:
    """Returns the chart."""
    protections = list(dict.fromkeys(row.protection for row in rows))
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")  # not pyplot's: notebooks have their own way to show it
    panels = figure.subplots((len(protections) + 1) // 2, 2, sharex=True, sharey=True, squeeze=False)
    for place, (axes, protection) in enumerate(zip(panels.flat, protections, strict=False)):
        chosen = [row for row in rows if row.protection == protection]
        events = [row.event for row in chosen]
        axes.barh(events, [100 * row.share for row in chosen], color="0.75", edgecolor="black",
                  hatch=HATCHES[place % 2], label="measured")  # fmt: skip
        axes.plot([100 * row.expected_broken for row in chosen], events, "kD", markerfacecolor="white", label="theory")
        axes.set_title(str(protection), fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels.flat[0].invert_yaxis()
    panels.flat[0].legend(fontsize=8)
    figure.supxlabel("connections that break though their endpoint lives, % of all", fontsize=9)
    return figure
