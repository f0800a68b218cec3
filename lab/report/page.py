"""A run as one HTML file that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..timeline import Record
from ..verdict import Verdict
from . import charts, parts
from .parts import Row
from .series import Share, gained, served

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; border-bottom: 1px solid #767676; margin-top: 2rem; }
.headline { font-size: 1.15rem; font-weight: 600; border: 3px solid #111; padding: .5rem .8rem; }
.headline.bad { border-style: double; border-width: 6px; }
article { border-left: 6px solid #111; padding: .1rem 0 .1rem .8rem; margin: .8rem 0; }
article.bad { border-left-style: double; background: #f2f2f2; }
h3 { font-size: 1rem; margin: .2rem 0; } dl { margin: .2rem 0; display: grid; grid-template-columns: 7rem 1fr; }
dt { color: #444; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: .8rem 0; } caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td { border: 1px solid #767676; padding: .15rem .5rem; text-align: left; overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; line-height: 1.2; } svg { max-width: 100%; height: auto; }
figure { margin: 1rem 0; overflow-x: auto; } figcaption { color: #444; }
details summary { cursor: pointer; }
@media print { body { max-width: none; } article, figure { break-inside: avoid; } }
"""


def page(record: Record) -> str:
    """Returns the whole page."""
    title, good = escape(parts.title(record)), all(record.verdicts)
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="headline{"" if good else " bad"}">{escape(parts.headline(record.verdicts))}</p>',
        _section("Verdicts", map(_verdict, record.verdicts)),
        _section("What happened", _happened(record)),
        _section("Shares", _shares(record)),
        _section("Wiring", _wiring(record)),
        _section("To repeat it", [_table("", ("what", "value"), parts.repeat(record))]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(heading: str, contents: Iterable[str]) -> str:
    body = "\n".join(content for content in contents if content)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>" if body else ""


def _verdict(verdict: Verdict) -> str:
    mark = "✔ holds" if verdict else "✘ DOES NOT HOLD"
    rows = [("expected", verdict.expected), ("actual", verdict.actual)]
    rows += [("look at", verdict.look_at)] if verdict.look_at and not verdict else []
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    return (
        f'<article class="{"good" if verdict else "bad"}"><h3>{mark}: {escape(verdict.claim)}</h3>'
        f"<dl>{facts}</dl>{_evidence(verdict)}</article>"
    )


def _evidence(verdict: Verdict) -> str:
    if not verdict.evidence:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in verdict.evidence)
    opened = "" if verdict else " open"
    return f"<details{opened}><summary>evidence</summary><ul>{lines}</ul></details>"


def _happened(record: Record) -> Iterable[str]:
    if len(record.samples) > 1:
        caption = "Grey bands are faults, numbered as below: from a full line, when they happened, to a dashed one."
        yield _figure(charts.over_time(record), caption)
    if record.events:
        yield _table("Events", parts.EVENT_HEADINGS, parts.events(record), numbers=(0, 1))


def _shares(record: Record) -> Iterable[str]:
    flows, packets = gained(record.samples, "flows"), gained(record.samples, "packets")
    at_s, endpoints = served(record.samples)
    yield from _share("New flows by Maglev", "new flows", flows, "SYNs to VIPs, counted by the routers.")
    yield from _share("Packets by Maglev", "packets", packets, "Packets to VIPs, counted by the routers.")
    when = f"Connections that lived when most did, at {at_s:.1f} s."
    yield from _share("Connections by endpoint", "connections", endpoints, when)


def _share(title: str, unit: str, found: Sequence[Share], caption: str) -> Iterable[str]:
    if found:
        yield _figure(charts.shares(found, title, unit), caption)
        yield _table(title, ("name", unit, "share"), parts.share_rows(found), numbers=(1, 2))


def _wiring(record: Record) -> Iterable[str]:
    found = parts.wiring(record.about)
    if found is not None:
        yield f"<pre>{escape(parts.drawing(found))}</pre>"
        yield _table("Nodes", ("name", "role", "addresses"), parts.addresses(found))


def _figure(svg: str, caption: str) -> str:
    return f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def _table(caption: str, headings: Sequence[str], rows: Sequence[Row], numbers: Sequence[int] = ()) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "\n".join(
        "<tr>" + "".join(_cell(cell, at in numbers) for at, cell in enumerate(row)) + "</tr>" for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _cell(text: str, is_number: bool) -> str:
    return f'<td class="number">{escape(text)}</td>' if is_number else f"<td>{escape(text)}</td>"
