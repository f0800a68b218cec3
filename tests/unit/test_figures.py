"""The paper's figures: what is measured, shown and drawn, with few trials; docs/figures.md has many."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lab.cli import app
from lab.errors import WrongUse
from lab.figures import measure
from lab.figures.report import tables
from maglev.comparison import Spread

DOCS = Path(__file__).parents[2] / "docs"
FEW = measure.Effort(2, 1, 3, 1, (1, 20))


@pytest.fixture(scope="module")
def document():
    """What two trials give."""
    told = []
    document = measure.measure(FEW, told.append)
    assert len(told) == measure.steps(FEW), "progress is shown to the end"
    return document


def rows(document, scheme, slots):
    return next(row for row in document["over_provisioning"] if (row["scheme"], row["slots"]) == (scheme, slots))


def test_maglev_is_even_to_the_slot_and_the_others_are_not(document):
    assert rows(document, "maglev", 65537)["median"] == pytest.approx(100 * (66 / 65.537 - 1), abs=0.01)
    for scheme in ("rendezvous", "ring 1000, even", "ring 1000, random", "ring 100, even", "ring 100, random"):
        assert rows(document, scheme, 655373)["median"] > 9
        assert rows(document, scheme, 65537)["least_share"] < 90


def test_more_removals_change_more_and_a_large_table_less(document):
    medians = [row["median"] for row in document["disruption"]]
    assert [(row["slots"], row["removed"]) for row in document["disruption"]] == [
        (65537, 1), (65537, 20), (655373, 1), (655373, 20),
    ]  # fmt: skip
    small, small_20, large, large_20 = medians
    assert small < small_20
    assert large < large_20 < small_20
    assert document["disruption"][1]["with_their_own"] == pytest.approx(small_20 + 2, abs=0.1)


def test_a_few_trials_say_nothing_about_the_papers_figure(document):
    assert {row["contains_paper"] for row in document["over_provisioning"]} == {None}


def test_the_tables_fit_a_terminal(document):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for title, table in tables(document):
        console.print(title)
        console.print(table)
    text = console.export_text()
    assert "…" not in text
    assert re.search(r"ring 150 itself +none +2 ", text)


def test_charts_and_tables_are_written(document, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda effort, step: document)
    result = CliRunner().invoke(app, ["figures", "--quick", "--out", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "new" / "figures.json").read_text())["figures"] == [11, 12]
    assert "Over-provisioning" in (tmp_path / "new" / "figures.txt").read_text()
    for chart in ("figure-11.svg", "figure-12.svg"):
        assert "<svg" in (tmp_path / "new" / chart).read_text()


def test_what_cannot_be_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("")
    for wrong in (["--out", str(tmp_path / "file")], ["--solution", str(tmp_path / "nothing.py")]):
        result = CliRunner().invoke(app, ["figures", *wrong])
        assert isinstance(result.exception, WrongUse), result.output


def test_what_docs_say_is_what_was_printed():
    """Whether the paper's figures lie within the intervals, recomputed from the numbers beside them."""
    lines = re.findall(
        r"^ (?:\w.*?) +(?:none|[\d,]+) +100 +([\d.]+) +([\d.]+) to +([\d.]+) +([\d.]+) +(yes|no)$",
        (DOCS / "figures.md").read_text(), re.M,
    )  # fmt: skip
    assert len(lines) == 13
    for median, low, high, paper, within in lines:
        assert Spread(float(median), float(low), float(high)).contains(float(paper)) == (within == "yes")
