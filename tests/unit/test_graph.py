"""Drawings of topologies: whoever reads one finds the wiring again, by following the lines and nothing else."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from lab import graph
from lab.errors import WrongUse
from lab.wiring import End, Link, Node, Wiring, natural, of_topo, read

ROLES = {"c": "client", "r": "router", "m": "maglev", "s": "endpoint"}
SIDES = {"╵": "u", "╷": "d", "│": "ud", "╴": "l", "┘": "ul", "┐": "dl", "┤": "udl", "╶": "r", "└": "ur", "┌": "dr",
         "├": "udr", "─": "lr", "┴": "ulr", "┬": "dlr", "┼": "udlr"}  # fmt: skip
OPPOSITE = {"u": "d", "d": "u"}
SVG = "{http://www.w3.org/2000/svg}"
ALL = 1000  # nodes that may be alike: none is left out


def wired(*pairs):
    """The wiring of these pairs of nodes, whose roles are in their names."""
    names = sorted({name for pair in pairs for name in pair}, key=natural)
    links = [Link(f"{a}-{b}", (End(a, f"{a}-to-{b}"), End(b, f"{b}-to-{a}"))) for a, b in pairs]
    return Wiring(tuple(Node(name, ROLES[name[0]]) for name in names), tuple(links))


def topologies():
    """Every topology in `topologies/`, as it is by default and larger."""
    pytest.importorskip("mininet.topo", reason="topologies are Mininet's: needs Debian's package mininet")
    from lab.laboratory import topology_names

    assert "rack" in topology_names()
    return topology_names()


@pytest.fixture(params=[{}, {"maglevs": 1, "endpoints": 1, "clients": 1}, {"maglevs": 4, "endpoints": 20}], ids=str)
def options(request):
    return request.param


@pytest.fixture
def wirings(options):
    names = topologies()
    from lab.laboratory import load_topology

    def wiring(name):
        try:
            return of_topo(load_topology(name, options))
        except WrongUse:  # not every topology can be had in every size
            return of_topo(load_topology(name, {}))

    return {name: wiring(name) for name in names}


def tiers_at_random(seed):
    """A data centre of five tiers: everyone has wires to the tiers next to it, and two of one tier one."""
    pick = random.Random(seed)
    tiers = [[f"{letter}{tier}{number}" for number in range(pick.randint(2, 5))] for tier, letter in enumerate("crrms")]
    pairs = {tuple(tiers[1][:2])}
    for upper, lower in itertools.pairwise(tiers):
        pairs |= {(pick.choice(upper), name) for name in lower} | {(name, pick.choice(lower)) for name in upper}
    return wired(*sorted(pairs))


# A reader of text


def read_text(drawing):
    """The pairs that are wired: follows each line of wires to the names at its ends, and knows nothing of layouts."""
    rows = [re.sub(r"   +[A-Z]?[a-z]+[a-zA-Z, ]*$", "", row) for row in drawing.splitlines()]
    names = {
        (row, column): found[0]
        for row, line in enumerate(rows)
        for found in re.finditer(r"[a-z]+\d+(?: … \S+ \(\d+\))?", line)
        for column in range(found.start(), found.end())
    }
    signs = {
        (row, column): SIDES[sign] for row, line in enumerate(rows) for column, sign in enumerate(line) if sign in SIDES
    }
    starts = [place for place, sides in signs.items() if "r" in sides and "l" not in sides]
    return {pair for start in starts for pair in pairs_on(start, signs, names)}


def pairs_on(start, signs, names):
    """The pairs of one line: all above it with all below it, or those above with each other if there is none below."""
    row, column = start
    above, below = set(), set()
    while True:
        sides = signs[row, column]
        if sides != "ud":  # which only crosses
            found = {side: follow(row, column, side, signs, names) for side in sides if side in "ud"}
            above.add(found.get("u"))
            below.add(found.get("d"))
        if "l" in sides and "r" not in sides:
            break
        column += 1
    above, below = above - {None}, below - {None}
    ends = itertools.product(above, below) if below else itertools.combinations(above, 2)
    return {frozenset(pair) for pair in ends}


def follow(row, column, side, signs, names):
    """The name to which a vertical wire leads; None if it ends at another line."""
    while side in signs.get((row, column), ""):
        row += -1 if side == "u" else 1
        if (row, column) in names:
            return names[row, column]
        assert OPPOSITE[side] in signs.get((row, column), ""), f"a wire ends in nothing at {row}, {column}"
    return None


def pairs_of(wiring):
    return {frozenset(link.nodes) for link in wiring.links}


# Text


@pytest.mark.parametrize("seed", range(50))
def test_following_the_lines_of_a_text_gives_the_wiring(seed):
    wiring = tiers_at_random(seed)
    drawing = graph.text(wiring, ALL)
    assert read_text(drawing) == pairs_of(wiring), drawing
    for name in wiring.names():
        assert re.findall(rf"\b{name}\b", drawing) == [name], drawing


def test_a_wire_within_a_layer_is_no_wire_to_the_next():
    wiring = wired(("c1", "r1"), ("c1", "r2"), ("r1", "r2"), ("r1", "m1"), ("r2", "m2"))
    assert read_text(graph.text(wiring)) == pairs_of(wiring), graph.text(wiring)


def test_text_says_what_stands_in_a_layer_and_has_no_trailing_blanks():
    drawing = graph.text(wired(("c1", "r1"), ("r1", "m1"), ("r1", "s1")))
    assert [line.split("   ")[-1].strip() for line in drawing.splitlines()[::2]] == [
        "clients", "routers", "Maglevs, endpoints",
    ]  # fmt: skip
    assert all(line == line.rstrip() for line in drawing.splitlines())


def test_many_that_are_wired_alike_are_drawn_as_one():
    wiring = wired(("c1", "r1"), ("r1", "m1"), *(("r1", f"s{number}") for number in range(1, 13)))
    drawing = graph.text(wiring)
    assert "s1 … s12 (12)" in drawing
    assert read_text(drawing) == {frozenset(pair) for pair in [("c1", "r1"), ("r1", "m1"), ("r1", "s1 … s12 (12)")]}
    assert "s1 … s12" not in graph.text(wiring, 12)


def test_nodes_stand_by_how_far_they_are_from_the_clients():
    layers = graph.layout(wired(("c1", "r1"), ("r1", "r2"), ("r2", "m1"), ("r2", "s1"))).layers
    assert [[box.name for box in layer] for layer in layers] == [["c1"], ["r1"], ["r2"], ["m1", "s1"]]


def test_what_is_wired_to_nobody_is_drawn_too():
    wiring = Wiring((*wired(("c1", "r1")).nodes, Node("m9", "maglev")), wired(("c1", "r1")).links)
    assert "m9" in graph.text(wiring)
    assert read_text(graph.text(wiring)) == {frozenset(("c1", "r1"))}


# Every topology, in every format


def test_every_topology_as_text(wirings):
    for name, wiring in wirings.items():
        assert read_text(graph.text(wiring, ALL)) == pairs_of(wiring), f"{name}: {graph.text(wiring, ALL)}"


def test_every_topology_as_svg(wirings):
    for name, wiring in wirings.items():
        document = ElementTree.fromstring(graph.svg(wiring, ALL))
        width, height = float(document.get("width")), float(document.get("height"))
        boxes = [[float(box.get(key)) for key in ("x", "y", "width", "height")] for box in document.iter(f"{SVG}rect")]
        words = [word.text for word in document.iter(f"{SVG}text")]
        assert len(list(document.iter(f"{SVG}path"))) == len(pairs_of(wiring)), name
        assert len(boxes) == len(wiring.nodes), name
        assert set(wiring.names()) <= set(words), name
        for x, y, w, h in boxes:
            assert 0 <= x <= x + w <= width, f"{name}: a box is outside"
            assert 0 <= y <= y + h <= height, f"{name}: a box is outside"
        for (x1, y1, w1, h1), (x2, y2, w2, h2) in itertools.combinations(boxes, 2):
            assert x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1, f"{name}: boxes overlap"


def test_every_topology_as_mermaid(wirings):
    for name, wiring in wirings.items():
        drawing = graph.mermaid(wiring, ALL)
        assert drawing.startswith("flowchart TD\n"), name
        names = dict(re.findall(r'^    (\w+)\["(.+)"\]:::\w+$', drawing, re.MULTILINE))
        wires = re.findall(r"^    (\w+) --- (\w+)$", drawing, re.MULTILINE)
        assert {frozenset((names[near], names[far])) for near, far in wires} == pairs_of(wiring), name
        styles = set(re.findall(r"classDef (\w+)", drawing))
        assert set(re.findall(r":::(\w+)", drawing)) == styles, name


def test_every_topology_as_dot(wirings):
    for name, wiring in wirings.items():
        drawing = graph.dot(wiring, ALL)
        wires = re.findall(r'^    "(.+)" -- "(.+)";$', drawing, re.MULTILINE)
        assert {frozenset(pair) for pair in wires} == pairs_of(wiring), name
        if shutil.which("dot"):
            done = subprocess.run(["dot", "-Tsvg"], input=drawing, capture_output=True, text=True, check=True)
            assert done.stdout.count('class="edge"') == len(pairs_of(wiring)), name


# Wirings


def test_a_wiring_comes_back_from_its_file(wirings, tmp_path):
    for wiring in wirings.values():
        wiring.write(tmp_path / "wiring.json")
        assert read(tmp_path / "wiring.json") == wiring


def test_links_are_found_in_either_order_and_the_others_named():
    wiring = wired(("c1", "r1"), ("r1", "m1"))
    assert wiring.link("m1-r1") == wiring.link("r1-m1")
    with pytest.raises(WrongUse, match="there is no link 'm1-c1'; there are c1-r1, r1-m1"):
        wiring.link("m1-c1")


def test_links_of_a_topology_begin_at_the_clients_and_parallel_ones_are_numbered():
    topo = pytest.importorskip("mininet.topo", reason="needs Debian's package mininet").Topo()
    for name in ("m1", "r-1", "c1"):
        topo.addHost(name)
    for pair in (("m1", "r-1"), ("r-1", "m1"), ("r-1", "c1")):
        topo.addLink(*pair)
    wiring = of_topo(topo)
    assert [link.name for link in wiring.links] == ["c1-r-1", "m1-r-1", "m1-r-1#2"], "without roles, by name"
    second = wiring.link("r-1-m1#2")
    assert {end.interface for end in second.ends} == {"m1-eth1", "r-1-eth1"}
    assert wiring.link_of["r-1-eth2"].name == "c1-r-1"


# The command


@pytest.fixture
def drawn(maglab):
    """Runs `maglab graph` with arguments; returns its exit status, what it prints and what it complains."""
    pytest.importorskip("mininet.topo", reason="topologies are Mininet's: needs Debian's package mininet")
    return lambda *arguments: maglab("graph", *arguments)


def test_the_command_prints_text_with_the_numbers_that_were_asked_for(drawn):
    status, printed, _ = drawn("rack", "--maglevs", "4", "--clients", "1")
    wires = {("c1", "r1"), *(("r1", f"m{number}") for number in range(1, 5)), *(("r1", f"s{n}") for n in range(1, 6))}
    assert status == 0
    assert read_text(printed) == {frozenset(pair) for pair in wires}


@pytest.mark.parametrize(
    ("name", "begins"), [("x.svg", "<svg "), ("x.mmd", "flowchart"), ("x.dot", "graph {"), ("x", " ")]
)
def test_a_files_name_says_the_format(drawn, tmp_path, name, begins):
    assert drawn("rack", "-o", str(tmp_path / name)) == (0, "", "")
    assert (tmp_path / name).read_text().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["ring"], ["'ring'", "rack"]),
        (["rack", "--maglevs", "0"], ["maglevs=0", "from 1 to 128"]),
        (["rack", "--format", "png"], ["png", "svg", "mermaid"]),
        (["rack", "-o", "/nowhere/x.svg"], ["--output", "/nowhere/x.svg"]),
    ],
)
def test_wrong_use_is_one_sentence(drawn, arguments, names):
    status, printed, complaint = drawn(*arguments)
    assert (status, printed, complaint.count("\n")) == (2, "", 1)
    for name in names:
        assert name in complaint
