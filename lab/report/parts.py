"""What both kinds of report say in words: tables as rows of text. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from .. import graph
from ..timeline import Event, Record
from ..verdict import Verdict
from ..wiring import End, Link, Node, Wiring
from .series import Share, build, seeds

Row = Sequence[str]


def title(record: Record) -> str:
    """Returns what the report is about: what the run calls itself, or the topology's name."""
    name = record.about.get("title") or record.about.get("lab", {}).get("topology") or "a lab"
    return f"Maglev Lab: {name}"


def headline(verdicts: Sequence[Verdict]) -> str:
    """Returns what came of it, in a sentence."""
    if not verdicts:
        return "Nothing was judged."
    holding = sum(map(bool, verdicts))
    everything = "Everything holds" if holding == len(verdicts) else "NOT everything holds"
    return f"{everything}: {holding} of {len(verdicts)} claims."


def events(record: Record) -> list[Row]:
    """Returns every event: time, its number in the chart if it is a fault, kind, what, where, details."""
    numbers = itertools.count(1)
    return [
        (
            f"{event.at_s:.2f}",
            str(next(numbers)) if event.kind == "fault" else "",
            event.kind,
            event.what,
            event.where,
            _details(event),
        )
        for event in record.events
    ]


def _details(event: Event) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.detail.items())


EVENT_HEADINGS = ("at, s", "no.", "kind", "what", "where", "details")


def share_rows(parts: Sequence[Share]) -> list[Row]:
    """Returns name, count and share of each."""
    return [(part.name, f"{part.count:,.0f}", f"{part.share:.2%}") for part in parts]


def repeat(record: Record) -> list[Row]:
    """Returns what one needs to do it again: what was built, by which command, with which seeds and versions."""
    about = record.about
    rows = [("built as", build(record)), ("command", str(about.get("command", "")))]
    rows += [("seed", seed) for seed in seeds(record)]
    rows += [("machine", str(about.get("machine", "")))]
    rows += [(name, str(version)) for name, version in about.get("versions", {}).items()]
    return [row for row in rows if row[1]]


def wiring(about: Mapping[str, Any]) -> Wiring | None:
    """Returns who was there and how they were wired, None if the timeline does not say."""
    document = about.get("wiring")
    if not document:
        return None
    nodes = tuple(Node(each["name"], each["role"], tuple(each["addresses"])) for each in document["nodes"])
    links = tuple(Link(each["name"], (End(**each["ends"][0]), End(**each["ends"][1]))) for each in document["links"])
    return Wiring(nodes, links)


def drawing(found: Wiring) -> str:
    """Returns the wiring as text."""
    return graph.text(found)


def addresses(found: Wiring) -> list[Row]:
    """Returns each node's name, role and addresses."""
    return [(node.name, node.role, ", ".join(node.addresses)) for node in found.nodes]
