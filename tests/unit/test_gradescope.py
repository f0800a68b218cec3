"""The autograder, unpacked and run as Gradescope does it: in a bare environment, with its directories elsewhere.

Setting up is left to `lab/setup/provision`, which has tests of its own: here the project's environment is lent to it.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path

import pytest

from lab.classroom.exercise import EXERCISES, ROOT, find
from lab.classroom.gradescope.pack import GRADING, main, pack
from lab.classroom.gradescope.run import found_in, seed_of

BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
UNPRIVILEGED = 65534
SECRET = "not to be known"
ALLOWED = {  # https://gradescope-autograders.readthedocs.io/en/latest/specs/#output-format
    "score": (int, float), "execution_time": (int, float), "output": str, "output_format": str,
    "test_output_format": str, "test_name_format": str, "visibility": str, "stdout_visibility": str,
    "extra_data": dict, "tests": list, "leaderboard": list,
}  # fmt: skip
ALLOWED_OF_TEST = {
    "score": (int, float), "max_score": (int, float), "status": str, "name": str, "name_format": str, "number": str,
    "output": str, "output_format": str, "tags": list, "visibility": str, "extra_data": dict,
}  # fmt: skip

PURE = '''
import os
from pathlib import Path
from lab.classroom import criterion
from lab.classroom.exercise import ROOT

REFERENCE = "maglev.primes"

@criterion(step=1, hint="compile", seconds=60)
def finds_machine_code(student, case):
    """Machine code is found, and kept for others of the same user."""
    import numpy
    from maglev.baselines import _mix
    _mix(numpy.uint64(1))
    case.measure("compiled", sum(_mix.stats.cache_misses.values()), 0)
    case.expect(bool(_mix.stats.cache_path), True, "whether machine code is kept")

@criterion(step=1, hint="be somebody")
def runs_apart(student, case):
    """Students' code can neither read the secret nor write results."""
    case.measure("user", os.geteuid(), 0)
    case.expect(student.read(ROOT / "grading.json"), "PermissionError", "what comes of reading the secret")
    case.expect(student.write(ROOT.parent / "results" / "results.json"), "PermissionError", "what comes of writing")
'''
CURIOUS = """
    def read(path):
        try:
            return path.read_text()
        except OSError as error:
            return type(error).__name__

    def write(path):
        try:
            return path.write_text("{}")
        except OSError as error:
            return type(error).__name__
"""
LIVE = '''
from lab.classroom import criterion

REFERENCE = "maglev.primes"

@criterion(step=1, hint="have a lab", lab={"topology": "rack"})
def needs_a_lab(lab, case):
    """Something happens in a lab."""

@criterion(step=1, hint="have none")
def needs_none(student, case):
    """Something happens without."""
'''


@pytest.fixture
def autograder():
    """The directory that is /autograder at Gradescope, with the archive unpacked; others may look into it."""
    closed = [place for place in (ROOT, *ROOT.parents) if not place.stat().st_mode & stat.S_IXOTH]
    if os.geteuid() == 0 and closed:
        pytest.skip(f"students' code is run as nobody, who may not enter {closed[0]}")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        place = Path(directory)
        pack(place / "gradescope.zip", ["04_packets", "06_connection_table"], SECRET)
        source = place / "source"
        with zipfile.ZipFile(place / "gradescope.zip") as archive:
            archive.extractall(source)
        (source / ".venv").symlink_to(ROOT / ".venv")
        (source / GRADING).chmod(0o600)  # as setup.sh has it
        for name in ("submission", "results"):
            (place / name).mkdir()
        (place / "submission_metadata.json").write_text('{"id": 123456, "users": [{"email": "ada@lab.example"}]}')
        yield place


def run(autograder, *before):
    """Runs it; returns the results, which have to be as Gradescope wants them."""
    shutil.copy(autograder / "source" / "run_autograder", autograder / "run_autograder")
    (autograder / "run_autograder").chmod(0o755)
    bare = ["env", "-i", *(f"{name}={value}" for name, value in BARE.items()), f"AUTOGRADER={autograder}"]
    command = [*before, *bare, str(autograder / "run_autograder")]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads((autograder / "results" / "results.json").read_text(), parse_constant=pytest.fail)
    _expect_allowed(document, ALLOWED)
    for test in document["tests"]:
        _expect_allowed(test, ALLOWED_OF_TEST)
        assert test.get("status", "passed") in ("passed", "failed")
        assert 0 <= test.get("score", 0) <= test.get("max_score", 0)
    for row in document.get("leaderboard", []):
        assert row.keys() <= {"name", "value", "order"}
        assert row["order"] in ("asc", "desc")
    assert document["score"] == sum(test.get("score", 0) for test in document["tests"])
    return document


def _expect_allowed(document, allowed):
    for name, value in document.items():
        assert name in allowed, name
        assert isinstance(value, allowed[name]), f"{name} is {value!r}"


def one_exercise(autograder, check, solution):
    """Has the autograder ask for one small exercise, and something be handed in for it."""
    exercises = autograder / "source" / "exercises"
    directory = exercises / "99_small"
    directory.mkdir()
    (directory / "check.py").write_text(check)
    (directory / "README.md").write_text("# 99. Small\n")
    (directory / "starter.py").write_text("")
    names = [line.split("(")[0].removeprefix("def ") for line in check.splitlines() if line.startswith("def ")]
    with open(exercises / "points.csv", "a") as file:
        file.writelines(f"99_small,{name},3\n" for name in names)
    (autograder / "source" / GRADING).write_text(json.dumps({"exercises": ["99_small"], "secret": SECRET}))
    (autograder / "submission" / "solution.py").write_text(textwrap.dedent(solution))


def test_what_was_handed_in_is_judged_and_what_was_not_is_said(autograder):
    wrong = ROOT / "tests" / "classroom" / "04_packets" / "no_carry.py"
    target = autograder / "submission" / "work" / "04_packets" / "solution.py"
    target.parent.mkdir(parents=True)
    shutil.copy(wrong, target)
    document = run(autograder)
    sums, *_, last = document["tests"]
    assert (sums["number"], sums["status"], sums["score"], sums["max_score"]) == ("04.1", "failed", 0, 2)
    assert "hint:" in sums["output"]
    assert last["output"] == "not handed in: there is no 06_connection_table/solution.py in the submission"
    assert last["max_score"] == sum(find("6").points().values())
    assert document["extra_data"] == {"seed": seed_of(SECRET, "123456")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have students' code run as somebody else")
def test_students_code_is_nobodys_as_root(autograder):
    one_exercise(autograder, PURE, CURIOUS)
    compile_one = "import numpy; from maglev.baselines import _mix; _mix(numpy.uint64(1))"  # setup.sh compiles all
    subprocess.run([sys.executable, "-c", compile_one], cwd=autograder / "source", check=True)
    document = run(autograder)
    assert [test["status"] for test in document["tests"]] == ["passed", "passed"], document["tests"]
    measured = {row["name"]: row["value"] for row in document["leaderboard"]}
    assert measured == {"compiled": 0, "user": UNPRIVILEGED}


def test_without_root_what_needs_a_lab_is_said_not_to_be_judged(autograder):
    one_exercise(autograder, LIVE, "")
    before = ()
    if os.geteuid() == 0:
        before = ("setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups")
        (autograder / "results").chmod(0o777)
        (autograder / "source" / GRADING).chmod(0o644)
    live, pure = run(autograder, *before)["tests"]
    assert live["output"].startswith("not judged here: a lab makes network namespaces, which only root may do")
    assert "status" not in live
    assert "max_score" not in live
    assert (pure["status"], pure["score"]) == ("passed", 3)


def test_links_are_not_handed_in(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "solution.py").write_text("secret")
    (tmp_path / "submission" / "04_packets").mkdir(parents=True)
    (tmp_path / "submission" / "04_packets" / "solution.py").symlink_to(tmp_path / "secret" / "solution.py")
    (tmp_path / "submission" / "06_connection_table").symlink_to(tmp_path / "secret")
    assert found_in(tmp_path / "submission", [find("4"), find("6")]) == {}
    assert found_in(tmp_path / "submission", [find("4")]) == {}


def test_seeds_hang_on_the_secret_and_on_the_submission():
    assert seed_of(SECRET, "1") == seed_of(SECRET, "1")
    assert len({seed_of(SECRET, "1"), seed_of(SECRET, "2"), seed_of("another", "1")}) == 3
    assert 0 <= seed_of(SECRET, "1") < 2**31


def test_packing_names_what_it_judges_and_draws_a_secret(tmp_path, capsys):
    secrets = set()
    for _ in range(2):
        main(["--exercise", "4", "--out", str(tmp_path / "g.zip")])
        with zipfile.ZipFile(tmp_path / "g.zip") as archive:
            grading = json.loads(archive.read(GRADING))
            modes = {name: archive.getinfo(name).external_attr >> 16 & 0o777 for name in ("setup.sh", "run_autograder")}
            packed = archive.namelist()
        assert {str(path.relative_to(ROOT)) for path in EXERCISES.rglob("*.py")} <= set(packed)
        assert not [name for name in packed if "__pycache__" in name or name.startswith("tests")]
        assert grading["exercises"] == ["04_packets"]
        assert all(mode & 0o111 for mode in modes.values())
        secrets.add(grading["secret"])
    assert len(secrets) == 2
    assert "judges 04_packets" in capsys.readouterr().out


def test_packing_refuses_an_exercise_that_there_is_not(tmp_path, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--exercise", "77", "--out", str(tmp_path / "g.zip")])
    assert leaving.value.code == 2
    assert "there is no exercise '77'" in capsys.readouterr().err
