"""Theory about persistence, held to simulations; and the command that shows both."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.persistence import simulated
from lab.persistence.chart import drawn
from lab.persistence.events import EVENTS, PROTECTIONS, Protection
from lab.persistence.rows import row_of
from lab.persistence.theory import within_chance
from maglev import persistence
from maglev.persistence import Counts, Shares

UNPROTECTED, PROTECTED = Protection("modulo", False), Protection("maglev", True)
WRONG = """
from maglev.persistence import Shares

def expected(before, after, dead, moved, recorded):
    return Shares(moved, 0.2)
"""


@pytest.fixture(scope="module")
def rows():
    return list(simulated.rows(PROTECTIONS))


def found(rows, protection, event):
    return next(row for row in rows if (row.protection, row.event) == (protection, EVENTS[event].name))


def test_theory_and_simulation_agree_in_every_combination(rows):
    assert len(rows) == len(PROTECTIONS) * len(EVENTS)
    assert all(row.agrees for row in rows), [row for row in rows if not row.agrees]


def test_each_protection_alone_covers_one_kind_of_change_and_both_cover_both(rows):
    assert {found(rows, each, "maglev").broken for each in PROTECTIONS} == {0}
    assert found(rows, UNPROTECTED, "endpoint").share == pytest.approx(0.6, abs=0.01)
    assert found(rows, Protection("modulo", True), "endpoint").broken == 0
    assert found(rows, Protection("modulo", True), "both").share == pytest.approx(0.2, abs=0.01)
    assert found(rows, PROTECTED, "both").share < 0.001
    assert found(rows, PROTECTED, "drained").share == pytest.approx(0.1, abs=0.01)


def test_a_full_table_leaves_hashing_alone_for_whom_it_has_no_room(rows):
    partly = found(rows, Protection("modulo", True), "flood")
    assert 0 < partly.broken < found(rows, UNPROTECTED, "flood").broken


@pytest.mark.parametrize(
    ("broken", "agrees"), [(120, True), (100, True), (140, True), (70, False), (170, False), (0, False)]
)
def test_what_chance_does_not_bring_about_disagrees(broken, agrees):
    row = row_of(UNPROTECTED, EVENTS["endpoint"], Counts(200, broken, 40), Shares(0.6, 0.2))
    assert row.agrees is agrees


@pytest.mark.parametrize(("broken", "share", "agrees"), [(0, 0.0, True), (1, 0.0, False), (200, 1.0, True)])
def test_certainty_leaves_nothing_to_chance(broken, share, agrees):
    assert within_chance(broken, 200, share) is agrees


def test_shares_of_tables_that_are_lists_or_arrays():
    before, after = [1, 1, 2, 2, 3, 3, 3, 3], [1, 2, 2, 1, 1, 2, 1, 2]
    for kind in (list, np.array):
        assert persistence.expected(kind(before), kind(after), [3], 0.5, 1.0) == Shares(0.125, 0.5)


def test_the_chart_has_a_panel_for_each_protection_and_a_bar_for_each_event(rows):
    axes = drawn(rows).axes
    assert [each.get_title() for each in axes] == [str(each) for each in PROTECTIONS]
    for panel, protection in zip(axes, PROTECTIONS, strict=True):
        widths = [bar.get_width() for bar in panel.patches]
        assert widths == [pytest.approx(100 * found(rows, protection, event).share) for event in EVENTS]


def test_the_command_says_where_a_solution_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(persistence, "expected", persistence.expected)  # put back what the solution takes away
    solution, result, chart = tmp_path / "solution.py", tmp_path / "rows.json", tmp_path / "rows.svg"
    solution.write_text(WRONG)
    files = ["--json", str(result), "--chart", str(chart)]
    ran = CliRunner().invoke(app, ["persistence", "--simulate", "--solution", str(solution), *files])
    assert ran.exit_code == 1, ran.output
    agree = {(row["event"], row["agrees"]) for row in json.loads(result.read_text())["rows"]}
    assert (EVENTS["maglev"].name, False) in agree
    assert (EVENTS["maglev"].name, True) not in agree
    assert chart.stat().st_size > 1000
    assert max(map(len, ran.output.splitlines())) <= 80


def test_the_command_refuses_what_it_cannot_do():
    for options, said in (
        (["--chart", "x.txt"], "allowed are names that end in .svg"),
        (["--solution", "no.py"], "maglab start 9"),
    ):
        ran = CliRunner().invoke(app, ["persistence", "--simulate", *options])
        assert said in str(ran.exception), ran.output
