"""Reports: they need nothing else, no colour and no eyes, and say what the timeline says."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mininet.net", reason="the laboratory needs Debian's package mininet")

from lab import report
from lab.report import charts
from lab.report.markdown import markdown
from lab.report.page import page
from lab.report.series import MOST_LINES, Line, build, few, gained, rates, readings, seeds, served, spans
from lab.timeline import Event, Record, Sample
from lab.verdict import Verdict

EVIL = '<script src="http://example.com/x.js"></script>'
GOOD = Verdict("connections persist", True, "no connection breaks", "0 of 300 broke")
BAD = Verdict("nothing is lost", False, "all", "one <lost> & gone", ("m1 | dropped 1", EVIL), "forwarder.log")
WIRING = {
    "nodes": [
        {"name": "c1", "role": "client", "addresses": ["10.0.1.2"]},
        {"name": "r1", "role": "router", "addresses": ["10.0.1.1"]},
        {"name": "m1", "role": "maglev", "addresses": ["10.1.1.2"]},
    ],
    "links": [
        {"name": "c1-r1", "ends": [{"node": "c1", "interface": "c1-eth0"}, {"node": "r1", "interface": "r1-eth0"}]},
        {"name": "r1-m1", "ends": [{"node": "r1", "interface": "r1-eth1"}, {"node": "m1", "interface": "m1-eth0"}]},
    ],
}
ABOUT = {
    "lab": {"topology": "rack", "hash": "maglev", "maglevs": 3},
    "versions": {"bird": "2.0.12", "numba": "0.68.1"},
    "machine": "a machine",
    "command": "maglab demo",
    "seed": 7,
    "wiring": WIRING,
}


def sample(at_s: float, m1: int, m2: int, alive: int = 300, broken: int = 0) -> Sample:
    values = {
        "packets": {"r1-m1": m1, "r1-m2": m2, "r2-m1": 0},
        "flows": {"r1-m1": m1 // 10, "r1-m2": m2 // 10},
        "connections": {"alive": alive, "reset": broken},
        "broken": {"": broken},
        "ready": {"m1": True, "m2": True},
        "cpu_s": {"m1": at_s / 10, "m2": at_s / 20, "c1": at_s},
        "served": {"s1": alive // 3, "s2": alive - alive // 3},
    }
    return Sample(at_s, values)


EVENTS = (
    Event(1.5, "fault", "kill", "m1"),
    Event(2.5, "traffic", "flood", "www", {"seed": 11, "note": EVIL}),
    Event(3.5, "undone", "kill", "m1"),
    Event(3.6, "fault", "impair", "r1-m2", {"loss": 5}),
)
RUN = Record(
    ABOUT, EVENTS, (sample(1, 0, 0), sample(2, 100, 1000), sample(3, 100, 2500), sample(4, 60, 3000, 299, 1)),
    (GOOD, BAD),
)  # fmt: skip


class Page(HTMLParser):
    """What a page is made of."""

    VOID = ("meta", "path", "use", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.words: list[tuple[str, str]] = []  # tag, text
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.words.append((self.open[-1] if self.open else "", data.strip()))

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]

    def text(self, *tags: str) -> str:
        return "\n".join(words for tag, words in self.words if not tags or tag in tags)


@pytest.fixture(scope="module")
def html() -> str:
    return page(RUN)


@pytest.fixture(scope="module")
def parsed(html: str) -> Page:
    return Page(html)


def test_a_page_is_well_formed_and_has_nothing_that_runs(parsed: Page) -> None:
    assert parsed.open == []
    for tag in (
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "audio",
        "video",
        "image",
        "foreignobject",
        "base",
    ):
        assert parsed.tags[tag] == 0, f"<{tag}> in the page"
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]


def test_a_page_asks_nobody_for_anything(html: str, parsed: Page) -> None:
    assert parsed.tags["svg"] == 4, "the test is void: there are no charts"
    links = parsed.values("src", "href", "xlink:href", "srcset", "action", "data", "poster")
    assert links, "the test is void: charts use their markers by links inside the page"
    assert all(link.startswith("#") for link in links), links
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html


def test_names_in_the_page_are_unique_and_every_link_finds_its_own(html: str, parsed: Page) -> None:
    ids = Counter(parsed.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    targets = [link[1:] for link in parsed.values("href", "xlink:href")] + re.findall(r"url\(#([^)]*)\)", html)
    assert set(targets) <= set(ids), set(targets) - set(ids)


def test_a_page_can_be_read_without_eyes(parsed: Page) -> None:
    """Charts have a title and a description that say what they show; tables have headings with a scope."""
    ids = set(parsed.values("id"))
    labels = parsed.values("aria-labelledby")
    assert len(labels) == parsed.tags["svg"]
    assert all(set(label.split()) <= ids for label in labels)
    assert parsed.values("lang") == ["en"]
    assert parsed.values("role") == ["img"] * parsed.tags["svg"]
    described = parsed.text("desc")
    assert "fault 1, kill m1: from 1.5 s to 3.5 s" in described
    assert "fault 2, impair r1-m2: from 3.6 s to the end" in described
    assert "m2: 500 to 1,500 packets a second" in described
    assert (
        len([1 for tag, name, value in parsed.attributes if (tag, name, value) == ("th", "scope", "col")])
        == parsed.tags["th"]
    )


def test_a_page_says_what_the_timeline_says(parsed: Page) -> None:
    text = parsed.text()
    for words in (
        "NOT everything holds: 1 of 2 claims.", "✔ holds: connections persist", "✘ DOES NOT HOLD: nothing is lost",
        "one <lost> & gone", "m1 | dropped 1", "forwarder.log", EVIL, "loss 5", "seed 11, note " + EVIL,
        "Lab('rack', hash='maglev', maglevs=3)", "maglab demo", "the run: 7", "flood www: 11", "bird", "2.0.12",
        "a machine", "10.1.1.2",
    ):  # fmt: skip
        assert words in text, words


def test_markdown_says_the_same(html: str) -> None:
    text = markdown(RUN)
    for words in (
        "**NOT everything holds: 1 of 2 claims.**", "- **holds: connections persist**", "m1 \\| dropped 1",
        "Lab('rack', hash='maglev', maglevs=3)", "| bird | 2.0.12 |", "| 1.50 | 1 | fault | kill | m1 |  |",
    ):  # fmt: skip
        assert words in text, words
    assert "<script" not in text.replace("\\<", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) >= 3 for row in rows)


@pytest.mark.parametrize(
    "record",
    [
        Record(),
        Record(ABOUT),
        Record(ABOUT, EVENTS),
        Record({}, (), (sample(1, 0, 0),)),
        Record({}, EVENTS, (sample(1, 0, 0), Sample(2, {}))),
        Record({}, (), (Sample(1, {}), Sample(2, {}), Sample(3, {}))),
        Record({}, (), (), (GOOD,)),
    ],
)
def test_whatever_little_is_known_makes_a_report(record: Record, tmp_path: Path) -> None:
    for name in ("run.html", "run.md"):
        report.write(record, tmp_path / name)
    assert Page((tmp_path / "run.html").read_text()).open == []
    assert (tmp_path / "run.md").read_text().startswith("# Maglev Lab: ")


def test_lines_are_told_apart_without_colour() -> None:
    """As many as may stand in one chart have different strokes, and different markers too; all are dark enough."""
    assert len(set(charts.STYLES)) >= MOST_LINES
    assert len(set(charts.MARKERS)) >= MOST_LINES
    for colour in charts.COLOURS:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert 1.05 / (luminance + 0.05) >= 3.0, f"{colour} is too pale on white"


def test_a_chart_draws_each_line_in_a_style_of_its_own(html: str) -> None:
    drawn = html[html.index("<svg") : html.index("</svg>")]
    assert len(set(re.findall(r"stroke-dasharray: ([^;\"]+)", drawn))) >= 2, "lines differ by colour alone"
    assert drawn.count("<pattern") >= 1, "faults are not hatched"


def test_a_fault_lasts_until_its_own_end() -> None:
    events = [
        Event(1, "fault", "kill", "m1"), Event(2.5, "fault", "kill", "m2", {"took_s": 0.5}),
        Event(3, "undone", "kill", "m1"),
        Event(4, "fault", "kill", "m1"), Event(5, "undone", "drain", "m2"), Event(6, "note", "kill", "m2"),
        Event(7, "undone", "kill", "m2"), Event(8, "undone", "kill", "m2"),
    ]  # fmt: skip
    found = [(span.number, span.where, span.from_s, span.until_s) for span in spans(events)]
    assert found == [(1, "m1", 1, 3), (2, "m2", 2, 7), (3, "m1", 4, None)]


def test_rates_are_differences_over_time_and_nothing_where_a_counter_began_anew() -> None:
    m1, m2 = rates(RUN.samples, "packets")
    assert (m1.name, m1.at_s, m1.values) == ("m1", (2, 3, 4), (100, 0, None))
    assert m2.values == (1000, 1500, 500)
    assert rates(RUN.samples[:1], "packets") == []


def test_what_was_gained_counts_over_all_samples() -> None:
    shares = {share.name: (share.count, round(share.share, 3)) for share in gained(RUN.samples, "packets")}
    assert shares == {"m1": (100, 0.032), "m2": (3000, 0.968)}
    assert gained((), "packets") == []


def test_who_served_is_counted_when_most_were_held() -> None:
    at_s, parts = served(RUN.samples)
    assert (at_s, [(share.name, share.count) for share in parts]) == (1, [("s1", 100), ("s2", 200)])


def test_counts_are_nothing_only_where_nobody_counted() -> None:
    samples = (Sample(1, {"connections": {"alive": 3}}), Sample(2, {"connections": {}}), Sample(3, {}))
    assert readings(samples, "connections", "alive").values == (3, 0, None)


@given(st.integers(1, 40))
def test_many_lines_become_few(count: int) -> None:
    lines = [Line(f"m{number}", (1.0, 2.0), (float(number), None)) for number in range(count)]
    drawn = few(lines)
    assert len(drawn) <= MOST_LINES
    if count > MOST_LINES:
        assert [line.values for line in drawn] == [
            (float(sum(range(count))), None), (float(count - 1), None), (0.0, None),
        ]  # fmt: skip


def test_seeds_and_the_way_to_build_it_again_are_found() -> None:
    assert seeds(RUN) == ["the run: 7", "flood www: 11"]
    assert build(RUN) == "Lab('rack', hash='maglev', maglevs=3)"
    assert build(Record()) == ""
