"""Scripts: how they are found, what they take, and what becomes of their verdicts. No lab is started here."""

from __future__ import annotations

import pytest

pytest.importorskip("mininet.net", reason="the laboratory needs Debian's package mininet")

from lab.errors import CannotStart, LabError, NotInTime, WrongUse
from lab.script import PROTECTIONS, Run, carry_out, load, shipped
from lab.verdict import Verdict

GOOD, BAD = Verdict("it is so", True, "so", "so"), Verdict("it is so", False, "so", "otherwise")


@pytest.fixture
def script(tmp_path):
    """Returns a function that makes a script of a scenario's lines."""

    def make(*lines, signature="run", docstring='"""Shows that.\n\nAnd more."""'):
        path = tmp_path / "shows.py"
        body = "\n    ".join(lines or ["pass"])
        path.write_text(f"{docstring}\nfrom lab.errors import *\ndef scenario({signature}):\n    {body}\n")
        return load(str(path))

    return make


def outcome(script, run=None, **options):
    return carry_out(script, run or Run(1), {**script.options, **options})


def test_a_script_is_known_by_its_file_and_the_first_line_of_its_docstring(script):
    loaded = script()
    assert (loaded.name, loaded.summary, loaded.protection, dict(loaded.options)) == ("shows", "Shows that.", "", {})


@pytest.mark.parametrize(
    ("text", "says"),
    [("x = 1", "has no function scenario"), ("def scenario(", "cannot be loaded"), ("import nix", "nix")],
)  # fmt: skip
def test_what_is_no_script_is_refused_in_a_sentence(tmp_path, text, says):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(WrongUse, match=says):
        load(str(path))


def test_a_script_may_have_data_classes(tmp_path):
    path = tmp_path / "classes.py"
    lines = ("from __future__ import annotations", "from dataclasses import dataclass", "@dataclass", "class Row:")
    path.write_text("\n".join((*lines, "    name: str", "def scenario(run, row=Row('a')): pass")))
    assert load(str(path)).options["row"].name == "a"


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(WrongUse) as refused:
        load("nothing")
    assert all(name in str(refused.value) for name in shipped())


def test_options_have_the_type_of_their_defaults(script):
    loaded = script(signature="run, connections=300, rate=1.5, vip='www'")
    assert loaded.chosen({"connections": "20", "rate": "2", "vip": "echo"}) == {
        "connections": 20, "rate": 2.0, "vip": "echo",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "says"),
    [({"size": "1"}, "takes no option 'size'; it takes connections"), ({"connections": "many"}, "a whole number")],
)
def test_other_options_are_refused(script, typed, says):
    with pytest.raises(WrongUse, match=says):
        script(signature="run, connections=300").chosen(typed)


def test_a_run_is_good_if_every_verdict_holds(script):
    met = []
    loaded = script("run.expect(verdict)", "run.expect(verdict)", signature="run, verdict=None")
    assert outcome(loaded, Run(1, meet=met.append), verdict=GOOD).ok
    assert met == [GOOD, GOOD]
    assert not outcome(loaded, verdict=BAD).ok


def test_a_run_without_a_verdict_has_shown_nothing(script):
    assert not outcome(script()).ok


@pytest.mark.parametrize("error", [NotInTime, LabError])
def test_a_lab_that_fails_is_a_verdict(script, error):
    result = outcome(script(f"raise {error.__name__}('m1 is late')"))
    assert not result.ok
    assert result.verdicts[0].actual == "m1 is late"


@pytest.mark.parametrize("error", [WrongUse, CannotStart])
def test_a_lab_that_never_was_is_none(script, error):
    with pytest.raises(error):
        outcome(script(f"raise {error.__name__}('no root')"))


def test_the_same_seed_rolls_the_same_dice(script):
    assert Run(7).random.random() == Run(7).random.random() != Run(8).random.random()


def test_an_unknown_protection_is_refused_with_those_there_are():
    with pytest.raises(WrongUse) as refused:
        Run(1, without=["seat-belt"])
    assert all(protection in str(refused.value) for protection in PROTECTIONS)


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ((), {"hash": "maglev", "table": True, "check": "vip", "limit": 50}),
        (("connection-table",), {"hash": "maglev", "table": False, "check": "vip", "limit": 50}),
        (("maglev-hashing",), {"hash": "modulo", "table": True, "check": "vip", "limit": 50}),
        (("health-checks",), {"hash": "maglev", "table": True, "check": None, "limit": 50}),
        (("vip-checks",), {"hash": "maglev", "table": True, "check": "address", "limit": 50}),
        (("limits",), {"hash": "maglev", "table": True, "check": "vip", "limit": None}),
    ],
)
def test_a_lab_lacks_what_its_run_is_without(without, expected):
    def configure(document):
        document["pools"]["web"]["health_check"]["through"] = "vip"
        document["vips"][0]["new_flows_per_s"] = 50

    config = Run(1, without).configured("rack", configure=configure).config
    check = config.pools["web"].health_check
    assert expected == {
        "hash": config.forwarder.hash,
        "table": config.forwarder.connection_table.enabled,
        "check": check and check.through,
        "limit": config.vips[0].new_flows_per_s,
    }
