"""A report's charts, as SVG inside a page: told apart by line style, marker and hatching, so that they need no colour.

Colours are Okabe and Ito's, which the colour-blind can tell apart, and whose brightness differs. Each chart has a title
and a description in words, for screen readers. The one module of the report that imports matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape

import matplotlib

matplotlib.use("Agg")  # draws into a file; no display is needed

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..bench.chart import BAR_INCHES, WIDTH_INCHES
from ..timeline import Record
from .series import Line, Share, Span, few, rates, readings, spans

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#000000",
    "#009E73",
    "#595959",
    "#CC79A7",
)  # all at 3:1 or more on white (WCAG 1.4.11)
STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "x")
FAULT, FAULT_EDGE = "0.88", "0.35"
MOST_MARKERS = 12  # on a line
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # behind words that a line may cross
FONTS = "system-ui, sans-serif"


def over_time(record: Record) -> str:
    """Returns throughput, broken connections and the Maglevs' processor time over the run, faults behind them."""
    faults, samples = spans(record.events), record.samples
    maglevs = {name for sample in samples for name in sample.values.get("ready", {})}
    throughput = few(rates(samples, "packets"))
    fates = [readings(samples, "connections", "alive"), readings(samples, "broken")]
    processor = few([line for line in rates(samples, "cpu_s") if line.name in maglevs])
    figure, panels = pyplot.subplots(
        3, figsize=(WIDTH_INCHES + 1, 7.5), sharex=True, height_ratios=(3, 2, 2), layout="constrained"
    )
    for axes, lines, label in (
        (panels[0], throughput, "packets/s to VIPs"),
        (panels[1], fates[1:], "connections broken"),
        (panels[2], processor, "cores, by Maglev"),
    ):
        _draw(axes, lines, label)
        _shade(axes, faults, samples[-1].at_s)
    _number(panels[0], faults)
    panels[-1].set_xlabel("seconds since the lab was made")
    title = "Throughput, broken connections and processor time, with faults"
    return _svg(figure, title, _in_words(throughput, fates, faults))


def _draw(axes: Axes, lines: Sequence[Line], label: str) -> None:
    for number, line in enumerate(lines):
        values = [float("nan") if value is None else value for value in line.values]
        axes.plot(
            line.at_s, values, label=line.name, color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number % len(STYLES)], linewidth=1.6, marker=MARKERS[number % len(MARKERS)], markersize=5,
            markevery=max(1, len(line.at_s) // MOST_MARKERS), markeredgecolor="black", markeredgewidth=0.6,
        )  # fmt: skip
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.grid(axis="y", color="0.85")
    axes.spines[["top", "right"]].set_visible(False)
    if lines:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3)


def _shade(axes: Axes, faults: Sequence[Span], end_s: float) -> None:
    """Draws each fault as a grey band from its beginning, a full line, to its end, a dashed one."""
    for fault in faults:
        until_s = end_s if fault.until_s is None else fault.until_s
        axes.axvspan(fault.from_s, until_s, facecolor=FAULT, hatch="..", edgecolor="0.75", linewidth=0, zorder=0)
        axes.axvline(fault.from_s, color=FAULT_EDGE, linewidth=1.0, zorder=1)
        if fault.until_s is not None:
            axes.axvline(fault.until_s, color=FAULT_EDGE, linewidth=1.0, linestyle="--", zorder=1)


def _number(axes: Axes, faults: Sequence[Span]) -> None:
    """Writes each fault's number above its beginning, in turns at two heights."""
    for fault in faults:
        height = 1.02 + 0.09 * (fault.number % 2)
        axes.text(fault.from_s, height, str(fault.number), transform=axes.get_xaxis_transform(), fontsize=9)


def _in_words(throughput: Sequence[Line], fates: Sequence[Line], faults: Sequence[Span]) -> str:
    lines = [f"{line.name}: {_range(line)} packets a second" for line in throughput]
    lines += [f"{line.name} connections: {_range(line)}" for line in fates]
    lines += [f"fault {fault.number}, {fault}: {_when(fault)}" for fault in faults]
    return "; ".join(lines)


def _range(line: Line) -> str:
    known = [value for value in line.values if value is not None]
    return f"{min(known):,.0f} to {max(known):,.0f}" if known else "not measured"


def _when(fault: Span) -> str:
    until = "to the end" if fault.until_s is None else f"to {fault.until_s:.1f} s"
    return f"from {fault.from_s:.1f} s {until}"


def shares(parts: Sequence[Share], title: str, unit: str) -> str:
    """Returns bars with each one's count and share, and a line where all would be alike."""
    names, values = [part.name for part in parts], [100 * part.share for part in parts]
    figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, 1.2 + BAR_INCHES * len(parts)), layout="constrained")
    bars = axes.barh(names, values, color="#56B4E9", edgecolor="black", hatch="//")
    axes.bar_label(bars, labels=[f"{part.count:,.0f}  ({part.share:.1%})" for part in parts], padding=4, bbox=PLATE)
    axes.axvline(100 / len(parts), color="black", linestyle="--", label=f"alike: {100 / len(parts):.1f} %")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max([*values, 100 / len(parts)]))
    axes.set_xlabel(f"% of {unit}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return _svg(figure, title, "; ".join(f"{p.name}: {p.count:,.0f} {unit}, {p.share:.1%}" for p in parts))


def _svg(figure: Figure, title: str, description: str) -> str:
    """Returns a figure as an element of a page: no prolog, names that no other chart has, title and description."""
    drawn = io.StringIO()
    slug = re.sub(r"\W+", "-", title.lower()).strip("-")
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": slug, "font.family": "sans-serif"}):
        figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    pyplot.close(figure)
    body = drawn.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"\bid=\"([^\"]+)\"", rf'id="{slug}-\1"', body)
    body = re.sub(r"(href=\"#|url\(#)", rf"\1{slug}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", rf"font: \1 {FONTS}", body)
    head, tail = body.split(">", 1)
    head += f' role="img" aria-labelledby="{slug}-title {slug}-desc"'
    return (
        f'{head}><title id="{slug}-title">{escape(title)}</title><desc id="{slug}-desc">{escape(description)}</desc>'
        f"{tail}"
    )
