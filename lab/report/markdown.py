"""A run in Markdown: what the page says, without charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..timeline import Record
from ..verdict import Verdict
from . import parts
from .parts import Row
from .series import gained, served

SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|"})


def markdown(record: Record) -> str:
    """Returns the whole text."""
    return "\n".join(_blocks(record)).rstrip() + "\n"


def _blocks(record: Record) -> Iterator[str]:
    yield f"# {_plain(parts.title(record))}\n"
    yield f"**{_plain(parts.headline(record.verdicts))}**\n"
    if record.verdicts:
        yield "## Verdicts\n"
        yield from map(_verdict, record.verdicts)
    if record.events:
        yield "\n## What happened\n"
        yield from _table(parts.EVENT_HEADINGS, parts.events(record))
    yield from _shares(record)
    found = parts.wiring(record.about)
    if found is not None:
        yield f"\n## Wiring\n\n```\n{parts.drawing(found)}```\n"
        yield from _table(("name", "role", "addresses"), parts.addresses(found))
    if rows := parts.repeat(record):
        yield "\n## To repeat it\n"
        yield from _table(("what", "value"), rows)


def _verdict(verdict: Verdict) -> str:
    lines = [f"- **{'holds' if verdict else 'DOES NOT HOLD'}: {_plain(verdict.claim)}**"]
    lines += [f"  - expected: {_plain(verdict.expected)}", f"  - actual: {_plain(verdict.actual)}"]
    if not verdict:
        lines += [f"  - {_plain(line)}" for line in verdict.evidence]
        lines += [f"  - look at: {_plain(verdict.look_at)}"] if verdict.look_at else []
    return "\n".join(lines)


def _shares(record: Record) -> Iterator[str]:
    at_s, endpoints = served(record.samples)
    for title, unit, found in (
        ("New flows by Maglev", "new flows", gained(record.samples, "flows")),
        ("Packets by Maglev", "packets", gained(record.samples, "packets")),
        (f"Connections by endpoint, at {at_s:.1f} s", "connections", endpoints),
    ):
        if found:
            yield f"\n## {title}\n"
            yield from _table(("name", unit, "share"), parts.share_rows(found))


def _table(headings: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _plain(text: str) -> str:
    """Returns text that Markdown takes as it is, in one line."""
    return " ".join(text.split()).translate(SPECIAL)
