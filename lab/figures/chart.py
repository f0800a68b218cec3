"""Draws figures 11 and 12: told apart by hatching, markers and lines, so that they need no colour.

Only imported when a chart is asked for, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure

from ..bench.chart import HATCHES, LINES, MARKERS

Document = Mapping[str, Any]

SHOWN = {"maglev": "Maglev", "ring 1000, even": "Karger's ring", "rendezvous": "rendezvous"}  # what figure 11 has
SIZE_INCHES = (7.0, 3.8)


def balance(document: Document, file: Path) -> None:
    """Figure 11: the largest and the smallest share, in percent of all slots; the paper's largest is a line."""
    rows = [row for row in document["over_provisioning"] if row["scheme"] in SHOWN]
    mean = 100 / document["backends"]
    figure, axes = pyplot.subplots(figsize=SIZE_INCHES, layout="constrained")
    for place, row in enumerate(rows):
        largest = mean * (1 + row["median"] / 100)
        errors = [[mean * (row["median"] - row["low"]) / 100], [mean * (row["high"] - row["median"]) / 100]]
        first = "_" if place else ""  # matplotlib leaves labels that begin so out of its legend
        axes.bar(place - 0.2, largest, 0.4, yerr=errors, capsize=4, color="0.75", edgecolor="black",
                 label=f"{first}largest share, median and 5 to 95 %")  # fmt: skip
        axes.bar(place + 0.2, mean * row["least_share"] / 100, 0.4, color="white", edgecolor="black",
                 hatch=HATCHES[1], label=f"{first}smallest share")  # fmt: skip
        if row["paper"] is not None:
            paper = mean * (1 + row["paper"] / 100)
            axes.plot([place - 0.42, place + 0.02], [paper, paper], color="black", lw=2.5, label="the paper's largest")
    axes.axhline(mean, color="black", ls=":", lw=1)
    axes.set_xticks(range(len(rows)), [f"{SHOWN[row['scheme']]}\n{row['slots']:,}" for row in rows], fontsize=8)
    axes.set_ylabel("% of all slots")
    axes.set_title(f"Figure 11: shares of {document['backends']:,} backends")
    shown = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    axes.legend(shown.values(), shown.keys(), fontsize=8)
    _save(figure, file)


def resilience(document: Document, file: Path) -> None:
    """Figure 12: which share of the slots changes beside those of the backends that went."""
    figure, axes = pyplot.subplots(figsize=SIZE_INCHES, layout="constrained")
    for number, slots in enumerate(dict.fromkeys(row["slots"] for row in document["disruption"])):
        rows = [row for row in document["disruption"] if row["slots"] == slots]
        gone = [100 * row["removed"] / document["backends"] for row in rows]
        medians = [row["median"] for row in rows]
        errors = [[row["median"] - row["low"] for row in rows], [row["high"] - row["median"] for row in rows]]
        axes.errorbar(gone, medians, errors, color="black", ls=LINES[number], marker=MARKERS[number], capsize=3,
                      markerfacecolor="white" if number else "black", label=f"{slots:,} slots")  # fmt: skip
    axes.set_xlabel("% of the backends that go at once")
    axes.set_ylabel("% of all slots that change\nand were not theirs")
    axes.set_ylim(bottom=0)
    axes.set_title(f"Figure 12: Maglev hashing, {document['backends']:,} backends")
    axes.legend(fontsize=8)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with pyplot.rc_context({"svg.hashsalt": file.stem}):  # so that the same numbers give the same file
        figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
