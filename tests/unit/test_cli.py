"""The command `maglab` used wrongly: an exit status and one sentence, before anything starts."""

from __future__ import annotations

import importlib.util
import os

import pytest
import typer

from lab import cli
from lab.errors import CannotStart, LabError, NotInTime, WrongUse
from maglev.errors import ConfigError, PlatformError, Problem

DONE, CLAIM_FAILED, WRONG_USE, NO_LAB, INTERRUPTED = 0, 1, 2, 3, 130

needs_mininet = pytest.mark.skipif(
    importlib.util.find_spec("mininet") is None, reason="the laboratory needs Debian's package mininet"
)


@pytest.fixture
def command(monkeypatch):
    """Returns a function that puts another `maglab try` in place of all commands."""

    def put(function):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.callback()(lambda: None)  # so that the one command has a name
        app.command("try")(function)
        monkeypatch.setattr(cli, "app", app)

    return put


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["frob"], ["frob"]),
        (["demo", "--frob"], ["--frob"]),
        (["demo", "--maglevs", "many"], ["--maglevs"]),
        pytest.param(["demo", "--maglevs", "1"], ["--maglevs 2 or more"], marks=needs_mininet),
        pytest.param(["demo", "--endpoints", "2"], ["--endpoints 3 or more"], marks=needs_mininet),
        (["demo", "--connections", "0"], ["--connections", "1"]),
        (["demo", "--connections", "20001"], ["--connections", "20000"]),
        (["demo", "--hash", "md5"], ["--hash", "maglev", "modulo", "ring", "rendezvous"]),
        (["demo", "--connection-table", "maybe"], ["--connection-table", "on", "off"]),
        pytest.param(["demo", "--json", "/nowhere/result.json"], ["/nowhere/result.json"], marks=needs_mininet),
        pytest.param(["demo", "--topology", "ring"], ["'ring'", "there are", "rack"], marks=needs_mininet),
        pytest.param(["demo", "--clients", "0"], ["clients=0", "from 1 to 250"], marks=needs_mininet),
        pytest.param(["demo", "--endpoints", "251"], ["endpoints=251", "from 1 to 250"], marks=needs_mininet),
        pytest.param(["up", "ring"], ["'ring'", "there are", "rack"], marks=needs_mininet),
        pytest.param(["up", "rack", "--maglevs", "0"], ["maglevs=0", "from 1 to 128"], marks=needs_mininet),
        pytest.param(["up", "pod", "--set", "spines=0"], ["spines=0", "from 1 to 16"], marks=needs_mininet),
        pytest.param(["up", "pod", "--set", "spines=many"], ["spines='many'", "a whole number"], marks=needs_mininet),
        pytest.param(["up", "sites", "--set", "sites"], ["--set 'sites'", "NAME=VALUE"], marks=needs_mininet),
        pytest.param(["up", "sharded", "--set", "routers=2"], ["'routers'", "it takes maglevs"], marks=needs_mininet),
        pytest.param(["graph", "rack", "--set", "colour=1"], ["'colour'", "it takes maglevs"], marks=needs_mininet),
        pytest.param(["up", "nowhere.py"], ["no file nowhere.py"], marks=needs_mininet),
        (["up", "rack", "rack"], ["rack"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_use_is_one_sentence_and_status_2(maglab, arguments, names):
    status, printed, complaint = maglab(*arguments)
    assert status == WRONG_USE, complaint
    assert complaint.startswith("maglab: ")
    assert complaint.count("\n") == 1, f"expected one line, got: {complaint}"
    for name in names:
        assert name in complaint, f"the complaint does not name {name!r}: {complaint}"
    assert "broken" not in printed


def test_a_json_file_that_is_a_directory_is_refused_before_the_demo(maglab, tmp_path):
    pytest.importorskip("mininet.net", reason="the laboratory needs Debian's package mininet")
    status, _, complaint = maglab("demo", "--json", str(tmp_path))
    assert (status, complaint.count("\n")) == (WRONG_USE, 1)
    assert str(tmp_path) in complaint


def test_without_arguments_it_says_what_there_is(maglab):
    status, printed, complaint = maglab()
    assert (status, complaint) == (DONE, "")
    for name in ("demo", "up", "doctor", "ps", "clean"):
        assert f"  {name}" in printed


@pytest.mark.parametrize("command_name", ["demo", "up", "doctor", "ps", "clean"])
def test_every_command_has_help(maglab, command_name):
    status, printed, _ = maglab(command_name, "--help")
    assert status == DONE
    assert f"maglab {command_name}" in printed


@needs_mininet
def test_help_lists_every_parameter_of_every_topology(maglab):
    from lab.catalogue import parameters, topology_names

    for command_name in ("up", "graph"):
        _, printed, _ = maglab(command_name, "--help")
        listed = " ".join(printed.partition("Topologies")[2].split())
        for name in topology_names():
            wanted = [
                f"{each.name}={'none' if each.default == '' else each.default}" for each in parameters(name).values()
            ]
            assert all(text in listed for text in wanted), (name, listed)


@needs_mininet
@pytest.mark.parametrize("arguments", [["demo"], ["up"], ["clean"]], ids=lambda value: value[0])
def test_without_root_no_lab_and_one_sentence(maglab, monkeypatch, arguments):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, _, complaint = maglab(*arguments)
    assert status == NO_LAB
    assert "sudo" in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (WrongUse("no such thing"), WRONG_USE),
        (CannotStart("no namespaces here"), NO_LAB),
        (NotInTime("convergence did not happen"), NO_LAB),
        (LabError("m1's bird has ended"), NO_LAB),
        (PlatformError("no raw socket"), NO_LAB),
        (ConfigError([Problem("f.yaml", "shard", "", "a name")]), NO_LAB),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_errors_are_told_in_their_own_words(maglab, command, error, expected):
    def fail():
        raise error

    command(fail)
    assert maglab("try") == (expected, "", f"maglab: {error}\n")


@pytest.mark.parametrize("status", [DONE, CLAIM_FAILED, NO_LAB])
def test_a_commands_exit_status_is_the_process_s(maglab, command, status):
    def leave():
        raise typer.Exit(status)

    command(leave)
    assert maglab("try") == (status, "", "")


def test_an_interruption_is_told_and_has_the_status_that_shells_give_it(maglab, command):
    def interrupted():
        raise KeyboardInterrupt

    command(interrupted)
    assert maglab("try") == (INTERRUPTED, "", "maglab: stopped, and everything taken away\n")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["export", "nowhere.jsonl"], ["nowhere.jsonl", "No such file"]),
        (
            ["export", "nowhere.jsonl", "--csv", "/nowhere/run.csv"],
            ["--csv /nowhere/run.csv", "a directory that exists"],
        ),
        (["report", "nowhere.jsonl", "/nowhere/run.html"], ["/nowhere/run.html", "a directory that exists"]),
        (["report", "nowhere.jsonl", "run.html"], ["nowhere.jsonl", "No such file"]),
        pytest.param(["demo", "--report", "/nowhere/run.html"], ["--report /nowhere/run.html"], marks=needs_mininet),
    ],
)
def test_files_that_are_not_there_are_named_before_anything_is_done(maglab, tmp_path, monkeypatch, arguments, names):
    monkeypatch.chdir(tmp_path)
    status, printed, complaint = maglab(*arguments)
    assert (status, printed) == (WRONG_USE, "")
    assert len(complaint.splitlines()) == 1
    assert all(name in complaint for name in names), complaint
    assert list(tmp_path.iterdir()) == []


@needs_mininet
def test_what_was_recorded_becomes_a_table_and_a_page(maglab, tmp_path):
    from lab.timeline import Timeline

    recorded = Timeline()
    recorded.keep_in(tmp_path / "run.jsonl")
    recorded.happened("fault", "kill", "m1")
    recorded.sampled({"packets": {"r1-m1": 7}})
    assert maglab("export", str(tmp_path / "run.jsonl"))[1].splitlines()[0] == "at_s,kind,what,where,value,text"
    for name in ("run.csv", "run.html", "run.md"):
        target = str(tmp_path / name)
        command = (
            ["export", str(tmp_path / "run.jsonl"), "--csv"]
            if name.endswith("csv")
            else ["report", str(tmp_path / "run.jsonl")]
        )
        assert maglab(*command, target)[0] == DONE
        assert "kill" in (tmp_path / name).read_text()
