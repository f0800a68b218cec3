"""A bench's document as a chart: told apart by place, hatching and markers, so that it needs no colour.

The one module that imports matplotlib, and only when a chart is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws into a file; no display is needed

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Document = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]

# Okabe and Ito's colours, which the colour-blind can tell apart; their brightness differs too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#000000")
HATCHES, MARKERS, LINES = ("", "///", "xx", ".."), ("o", "s", "^", "D"), ("-", "--", ":", "-.")
OUR_ENGINES = ("xdp", "ring", "socket")
BAR_INCHES, WIDTH_INCHES = 0.42, 8.0


def draw(document: Document, file: Path) -> None:
    """Writes a document's chart to a file, in the format that its name ends with."""
    figure = CHARTS[document["bench"]](document)
    figure.suptitle(_machine(document), fontsize=8)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _machine(document: Document) -> str:
    machine = document["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}"


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['engine']} {row.get('variant', '')}".strip()


def _bars(names: Sequence[str], values: Sequence[float], title: str, unit: str, ours: Sequence[bool]) -> Figure:
    """Returns horizontal bars, the first row on top, each with its figure; ours are full, the others hatched."""
    figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, 1.4 + BAR_INCHES * len(names)), layout="constrained")
    bars = axes.barh(names, values, color=[COLOURS[0] if own else "white" for own in ours], edgecolor="black")
    for bar, own in zip(bars, ours, strict=True):
        bar.set_hatch("" if own else "///")
    axes.bar_label(bars, labels=[f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}" for value in values], padding=15)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_title(title)
    axes.set_xlabel(unit)
    _tidy(axes)
    return figure


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _throughput(document: Document) -> Figure:
    rows = sorted(document["rows"], key=lambda row: -row["pps"])
    figure = _bars(
        [_name(row) for row in rows],
        [row["pps"] / 1e3 for row in rows],
        "Packets a second through one core (full: Maglev Lab's engines)",
        "1,000 packets/s; the line spans all runs",
        [row["engine"] in OUR_ENGINES for row in rows],
    )
    for place, row in enumerate(rows):
        figure.axes[0].plot([min(row["runs"]) / 1e3, max(row["runs"]) / 1e3], [place, place], color="black", lw=2)
    return figure


def _latency(document: Document) -> Figure:
    """Returns, for each rate, where p50, p99 and p99.9 lie, on a logarithmic axis."""
    rates = sorted({row["rate_pps"] for row in document["rows"]})
    size = (WIDTH_INCHES, 1.6 + BAR_INCHES * len(document["rows"]))
    figure, panels = pyplot.subplots(len(rates), figsize=size, sharex=True, squeeze=False, layout="constrained")
    for rate, axes in zip(rates, panels[:, 0], strict=True):
        rows = [row for row in document["rows"] if row["rate_pps"] == rate]
        names = [_name(row) for row in rows]
        for i, (field, label) in enumerate((("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9"))):
            values = [row[field] for row in rows]
            axes.plot(values, names, MARKERS[i], color=COLOURS[i], markeredgecolor="black", label=label)
        axes.set_xscale("log")
        axes.invert_yaxis()
        axes.margins(y=0.2)
        axes.set_title(f"{rate:,} packets/s")
        axes.grid(axis="x", color="0.85")
        _tidy(axes)
    panels[0, 0].legend()
    panels[-1, 0].set_xlabel("µs one way")
    return figure


def _lookup_tables(document: Document) -> Figure:
    names, values, ours = [], [], []
    for row in document["rows"]:
        size = f"N={row['backends']:,} M={row['table_size']:,}"
        both = ((size, row["ms"], True), (f"{size}, the paper", row["paper_ms"], False))
        for name, value, own in (each for each in both if each[1]):
            names.append(name)
            values.append(value)
            ours.append(own)
    return _bars(names, values, "Building a lookup table", "ms", ours)


def _connections(document: Document) -> Figure:
    cells = [
        (row["subject"], what, row[f"{what}_ns"]) for row in document["rows"] for what in ("insert", "hit", "miss")
    ]
    names, values = [f"{subject}: {what}" for subject, what, _ in cells], [ns for _, _, ns in cells]
    title = f"A connection table with {document['connections']:,} entries"
    return _bars(names, values, title, "ns an operation", [subject != "dict" for subject, _, _ in cells])


def _lab(document: Document) -> Figure:
    rows = document["rows"]
    names, values = [row["event"] for row in rows], [row["s"] for row in rows]
    return _bars(names, values, f"A lab comes and goes: {document['topology']}", "s", [True] * len(rows))


def _growth(document: Document) -> Figure:
    """Returns small multiples: one panel for each thing that grows, all with the same axis."""
    series = list(dict.fromkeys(row["series"] for row in document["rows"]))
    engines = list(dict.fromkeys(row["engine"] for row in document["rows"]))
    size = (2.6 * max(1, len(series)), 3.4)
    figure, panels = pyplot.subplots(
        1, max(1, len(series)), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for name, axes in zip(series, panels[0], strict=False):
        _panel(axes, name, [row for row in document["rows"] if row["series"] == name], engines)
    panels[0, 0].set_ylabel("1,000 packets/s")
    panels[0, 0].set_ylim(bottom=0)
    panels[0, 0].legend()
    return figure


def _panel(axes: Axes, name: str, rows: Rows, engines: Sequence[str]) -> None:
    for i, engine in enumerate(engines):
        own = [row for row in rows if row["engine"] == engine]
        line = "none" if name == "packets" else LINES[i % len(LINES)]  # kinds of packets have no order
        values = [row["pps"] / 1e3 for row in own]
        low = [value - min(row["runs"]) / 1e3 for value, row in zip(values, own, strict=True)]
        high = [max(row["runs"]) / 1e3 - value for value, row in zip(values, own, strict=True)]
        axes.errorbar(
            [row["x"] for row in own], values, yerr=[low, high], label=engine, linestyle=line, capsize=3,
            marker=MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)],
        )  # fmt: skip
    axes.set_title(name)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="y", color="0.85")
    _tidy(axes)


def _scale(document: Document) -> Figure:
    """Returns a panel for each thing that grows with a lab."""
    panels_of = {"s until up": "start_s", "MB": "memory_bytes", "processors while idle": "idle_cores"}
    figure, panels = pyplot.subplots(
        1, len(panels_of), figsize=(WIDTH_INCHES, 3.4), squeeze=False, layout="constrained"
    )
    nodes = [row["nodes"] for row in document["rows"]]
    for (title, field), axes in zip(panels_of.items(), panels[0], strict=True):
        values = [row[field] / (1e6 if field == "memory_bytes" else 1) for row in document["rows"]]
        axes.plot(nodes, values, marker=MARKERS[0], color=COLOURS[0])
        axes.set_title(title)
        axes.set_xlabel("nodes")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="0.85")
        _tidy(axes)
    return figure


CHARTS: Mapping[str, Callable[[Document], Figure]] = {
    "forwarder": _throughput,
    "latency": _latency,
    "table": _lookup_tables,
    "connections": _connections,
    "lab": _lab,
    "growth": _growth,
    "scale": _scale,
}
