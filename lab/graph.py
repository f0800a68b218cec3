"""Draws a topology: text and SVG, which need nothing else, and the languages of Mermaid and Graphviz (dot).

Pure: a `Wiring` in, text out. All drawings come from one layout: nodes stand in layers by how many links they are from
the clients, and within a layer near those that they are wired to. Where many nodes are wired alike, those in the middle
are left out: `s1 … s100` stands for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

from .wiring import ROLES, Wiring, natural

MOST_ALIKE = 8  # nodes that are wired alike and drawn one by one; of more, the first and the last stand for all
COLOURS = {
    "client": "#dbeafe", "nameserver": "#fef9c3", "router": "#e5e7eb", "switch": "#e5e7eb", "maglev": "#fed7aa",
    "endpoint": "#dcfce7", "node": "#ffffff",
}  # fmt: skip
PLURALS = {role: f"{role}s" for role in ROLES} | {
    "switch": "switches",
    "maglev": "Maglevs",
    "nameserver": "name servers",
}


@dataclass(frozen=True)
class Box:
    """What is drawn as one: a node, or many that are wired alike."""

    name: str
    role: str


@dataclass(frozen=True)
class Layout:
    """Boxes in layers from the clients inwards, and the pairs of them that are wired; each pair is from one layer, or
    from two that are next to each other, the outer box first."""

    layers: tuple[tuple[Box, ...], ...]
    pairs: tuple[tuple[str, str], ...]


def layout(wiring: Wiring, most_alike: int = MOST_ALIKE) -> Layout:
    """Returns where everything stands."""
    boxes, belongs_to = _boxes(wiring, most_alike)
    joined: dict[str, set[str]] = {box.name: set() for box in boxes}
    for link in wiring.links:
        near, far = (belongs_to[name] for name in link.nodes)
        joined[near].add(far)
        joined[far].add(near)
    depths = _depths(boxes, joined)
    layers = _ordered(
        [[box for box in boxes if depths[box.name] == depth] for depth in sorted(set(depths.values()))], joined
    )
    place = {box.name: (number, at) for number, layer in enumerate(layers) for at, box in enumerate(layer)}
    pairs = {(name, other) for name, others in joined.items() for other in others if place[name] < place[other]}
    return Layout(layers, tuple(sorted(pairs, key=lambda pair: (place[pair[0]], place[pair[1]]))))


def _boxes(wiring: Wiring, most_alike: int) -> tuple[list[Box], dict[str, str]]:
    """Returns what is drawn, and the box of each node: those of one role with the same neighbours may share one."""
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for node in wiring.nodes:
        alike.setdefault((node.role, tuple(sorted(wiring.neighbours(node.name)))), []).append(node.name)
    boxes: list[Box] = []
    belongs_to: dict[str, str] = {}
    for (role, _), names in alike.items():
        drawn = [[name] for name in names] if len(names) <= most_alike else [names]
        for members in drawn:
            box = Box(members[0] if len(members) == 1 else f"{members[0]} … {members[-1]} ({len(members)})", role)
            boxes.append(box)
            belongs_to |= dict.fromkeys(members, box.name)
    return boxes, belongs_to


def _depths(boxes: Sequence[Box], joined: Mapping[str, set[str]]) -> dict[str, int]:
    """Returns how many links each box is from the clients, or from whoever is outermost where there are none."""
    depths: dict[str, int] = {}
    while left := [box for box in boxes if box.name not in depths]:  # once, unless there are parts without a link
        outermost = min(ROLES.index(box.role) for box in left)
        reached = [box.name for box in left if ROLES.index(box.role) == outermost]
        depth = 0
        while reached:
            depths |= dict.fromkeys(reached, depth)
            depth += 1
            reached = sorted({other for name in reached for other in joined[name] if other not in depths})
    return depths


def _ordered(layers: Sequence[Sequence[Box]], joined: Mapping[str, set[str]]) -> tuple[tuple[Box, ...], ...]:
    """Returns layers whose boxes stand by role, and then near the middle of those above that they are wired to."""
    places: dict[str, int] = {}
    ordered = []
    for layer in layers:
        above = {box.name: [places[other] for other in joined[box.name] if other in places] for box in layer}
        middles = {name: sum(each) / len(each) if each else 0.0 for name, each in above.items()}
        placed = sorted(layer, key=lambda box: (ROLES.index(box.role), middles[box.name], natural(box.name)))
        places = {box.name: place for place, box in enumerate(placed)}
        ordered.append(tuple(placed))
    return tuple(ordered)


def _title(layer: Iterable[Box]) -> str:
    return ", ".join(PLURALS[role] for role, _ in groupby(box.role for box in layer))


# Text: below a layer stand lines of wires. All upper boxes that hang on a line are wired to all lower ones that do, or
# to each other if there is no lower one. Where a wire only crosses a line, the line is broken: "─│─". Upper boxes stand
# in even columns and lower ones in odd ones, or the other way round, so that no two wires fall into one column.

UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
LINES = dict(zip("╵╷│╴┘┐┤╶└┌├─┴┬┼", range(1, 16), strict=True))
_DRAWN = {sides: line for line, sides in LINES.items()}
MARGIN, GAP = 2, 3


def text(wiring: Wiring, most_alike: int = MOST_ALIKE) -> str:
    """Returns a drawing in lines of text, with the layers' roles at the right."""
    drawing = layout(wiring, most_alike)
    widths = [sum(len(box.name) + GAP for box in layer) for layer in drawing.layers]
    columns: dict[str, int] = {}
    for number, layer in enumerate(drawing.layers):
        columns |= _columns(layer, (max(widths) - widths[number]) // 2, number % 2)
    lines, width = [], max(widths) + MARGIN + GAP
    for layer in drawing.layers:
        lines.append(f"{_names(layer, columns):{width}}{_title(layer)}".rstrip())
        lines += _wires(layer, drawing.pairs, columns)
    return "\n".join(lines) + "\n"


def _columns(layer: Sequence[Box], indent: int, parity: int) -> dict[str, int]:
    """Returns the column of each box's wires, which is the middle of its name: even, or odd for a parity of 1."""
    columns, at = {}, MARGIN + indent
    for box in layer:
        middle = at + len(box.name) // 2
        middle += (middle + parity) % 2
        columns[box.name] = middle
        at = middle - len(box.name) // 2 + len(box.name) + GAP - 1
    return columns


def _names(layer: Sequence[Box], columns: Mapping[str, int]) -> str:
    line = ""
    for box in layer:
        line = line.ljust(columns[box.name] - len(box.name) // 2) + box.name
    return line


def _wires(layer: Sequence[Box], pairs: Sequence[tuple[str, str]], columns: Mapping[str, int]) -> list[str]:
    """Returns the lines below a layer."""
    inside = {box.name for box in layer}
    tracks = _tracks(inside, [pair for pair in pairs if pair[0] in inside])
    spans: dict[str, tuple[int, int]] = {}  # box: the rows between which its wire runs, from the layer above or below
    for row, on_it in enumerate(tracks):
        for each in on_it:
            first, last = (0, row) if each in inside else (row, len(tracks) - 1)
            known = spans.get(each, (first, last))
            spans[each] = min(first, known[0]), max(last, known[1])
    return [_track(row, on_it, inside, spans, columns) for row, on_it in enumerate(tracks)]


def _tracks(inside: set[str], pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Returns the boxes on each line: first pairs of one layer, then those that are wired to the same lower ones."""
    below: dict[str, list[str]] = {}
    for name, other in pairs:
        if other not in inside:
            below.setdefault(name, []).append(other)
    upper: dict[tuple[str, ...], list[str]] = {}
    for name, others in below.items():
        upper.setdefault(tuple(others), []).append(name)
    beside = [list(pair) for pair in pairs if pair[1] in inside]
    return beside + [[*names, *others] for others, names in upper.items()]


def _track(
    row: int, on_it: Sequence[str], inside: set[str], spans: Mapping[str, tuple[int, int]], columns: Mapping[str, int]
) -> str:
    """Returns one line of wires: those in `on_it` are joined by it, all others cross it."""
    ends = [columns[name] for name in on_it]
    sides = dict.fromkeys(range(min(ends), max(ends) + 1), LEFT | RIGHT)
    for name, (first, last) in spans.items():
        if name in on_it:
            up = UP if name in inside or row > first else 0
            down = DOWN if name not in inside or row < last else 0
            left, right = LEFT * (columns[name] > min(ends)), RIGHT * (columns[name] < max(ends))
            sides[columns[name]] = up | down | left | right
        elif first <= row <= last:
            sides[columns[name]] = UP | DOWN
    return "".join(_DRAWN[sides[at]] if at in sides else " " for at in range(max(sides) + 1))


# SVG

BOX_HEIGHT, LETTER, SPACE, ROW, EDGE = 30, 8, 18, 110, 24  # pixels


def svg(wiring: Wiring, most_alike: int = MOST_ALIKE) -> str:
    """Returns a drawing as a document in SVG 1.1, with the layers' roles at the left."""
    drawing = layout(wiring, most_alike)
    titles = max(len(_title(layer)) for layer in drawing.layers) * LETTER + SPACE
    widths = [sum(_width(box) + SPACE for box in layer) - SPACE for layer in drawing.layers]
    width, height = EDGE * 2 + titles + max(widths), EDGE * 2 + ROW * (len(drawing.layers) - 1) + BOX_HEIGHT
    middles: dict[str, tuple[float, float]] = {}
    for number, layer in enumerate(drawing.layers):
        at = EDGE + titles + (max(widths) - widths[number]) / 2
        for box in layer:
            middles[box.name] = at + _width(box) / 2, EDGE + BOX_HEIGHT / 2 + ROW * number
            at += _width(box) + SPACE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="13">',
        *(_wire(middles[near], middles[far]) for near, far in drawing.pairs),
        *(_box(box, *middles[box.name]) for layer in drawing.layers for box in layer),
        *(_label(EDGE, EDGE + BOX_HEIGHT / 2 + ROW * at, _title(layer)) for at, layer in enumerate(drawing.layers)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _width(box: Box) -> int:
    return len(box.name) * LETTER + 20


def _wire(near: tuple[float, float], far: tuple[float, float]) -> str:
    """Returns a straight line between layers, or a bow below a layer, around what stands between the two."""
    (x1, y1), (x2, y2) = near, far
    if y1 != y2:
        return f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" stroke="#6b7280" fill="none"/>'
    return f'<path d="M{x1:g} {y1:g} Q{(x1 + x2) / 2:g} {y1 + ROW:g} {x2:g} {y2:g}" stroke="#6b7280" fill="none"/>'


def _box(box: Box, x: float, y: float) -> str:
    shape = (
        f'<rect x="{x - _width(box) / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{_width(box)}" height="{BOX_HEIGHT}" '
        f'rx="6" fill="{COLOURS[box.role]}" stroke="#374151"/>'
    )
    return f'{shape}<text x="{x:g}" y="{y + 5:g}" text-anchor="middle">{escape(box.name)}</text>'


def _label(x: float, y: float, words: str) -> str:
    return f'<text x="{x:g}" y="{y + 5:g}" fill="#6b7280">{escape(words)}</text>'


# Languages of others


def mermaid(wiring: Wiring, most_alike: int = MOST_ALIKE) -> str:
    """Returns a flowchart for Mermaid, which GitHub shows in Markdown."""
    drawing = layout(wiring, most_alike)
    boxes = [box for layer in drawing.layers for box in layer]
    numbers = {box.name: f"n{number}" for number, box in enumerate(boxes)}  # names could be words of the language
    roles = dict.fromkeys(box.role for box in boxes)
    lines = [
        "flowchart TD",
        *(f'    {numbers[box.name]}["{box.name}"]:::{box.role}' for box in boxes),
        *(f"    {numbers[near]} --- {numbers[far]}" for near, far in drawing.pairs),
        *(f"    classDef {role} fill:{COLOURS[role]},stroke:#374151,color:#111827" for role in roles),
    ]
    return "\n".join(lines) + "\n"


def dot(wiring: Wiring, most_alike: int = MOST_ALIKE) -> str:
    """Returns a graph for Graphviz: `maglab graph rack --format dot | dot -Tsvg`."""
    drawing = layout(wiring, most_alike)
    lines = ["graph {", '    node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    for layer in drawing.layers:
        boxes = " ".join(f'"{box.name}" [fillcolor="{COLOURS[box.role]}"];' for box in layer)
        lines.append(f"    {{ rank=same; {boxes} }}")
    lines += [f'    "{near}" -- "{far}";' for near, far in drawing.pairs]
    return "\n".join([*lines, "}"]) + "\n"


FORMATS: Mapping[str, Callable[[Wiring, int], str]] = {"text": text, "svg": svg, "mermaid": mermaid, "dot": dot}
SUFFIXES = {".svg": "svg", ".mmd": "mermaid", ".dot": "dot", ".gv": "dot"}


def draw(wiring: Wiring, format: str, everyone: bool = False) -> str:
    """Returns a drawing in one of `FORMATS`; `everyone` leaves nobody out, however many are wired alike."""
    return FORMATS[format](wiring, len(wiring.nodes) if everyone else MOST_ALIKE)


def format_of(path: Path | None) -> str:
    """Returns the format that a file's name asks for: text, unless it ends in .svg, .mmd, .dot or .gv."""
    return SUFFIXES.get(path.suffix, "text") if path else "text"
