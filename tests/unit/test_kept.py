"""Machine code that is kept: told by its sources and its processor, complete or not; after set-up none is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from maglev import kept

NOBODY = "nobody"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two sources, for which machine code may be kept."""
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / "words.py").write_text("ONE = 1\n")
    (tmp_path / "flow.py").write_text("TCP = 6\n")
    (tmp_path / "vips.py").write_text("no source of machine code\n")
    monkeypatch.setattr(kept, "PACKAGE", tmp_path)
    monkeypatch.setattr(kept, "KEPT", tmp_path / "__pycache__")
    return tmp_path


def test_the_directory_is_named_after_what_the_code_is_made_of(package):
    first = kept.directory()
    (package / "vips.py").write_text("changed\n")
    assert kept.directory() == first, "a file that nothing is compiled of should not matter"
    assert kept.directory(checked=True) != first, "checked code should be kept apart"
    for source in ("flow.py", "fast/words.py"):
        before = (package / source).read_text()
        (package / source).write_text("ONE = 2\n")
        assert kept.directory() != first, f"{source} has changed"
        (package / source).write_text(before)
    assert kept.directory() == first, "the same sources should find their code again"


def test_code_is_whole_once_it_is_marked_and_for_this_processor(package, monkeypatch):
    place = kept.directory()
    assert not kept.is_whole(place), "there is none yet"
    place.mkdir(parents=True)
    assert not kept.is_whole(place), "it may have been interrupted"
    kept.mark_whole(place)
    assert kept.is_whole(place)
    other = package / "cpuinfo"
    other.write_text("processor\t: 0\nmodel name\t: Another\nflags\t\t: fpu\n\nprocessor\t: 1\n")
    monkeypatch.setattr(kept, "ABOUT_PROCESSORS", other)
    assert not kept.is_whole(place), "another processor has other machine code"


def test_a_processor_is_its_model_and_not_its_load():
    assert kept.processor() == kept.processor()
    assert "MHz" not in kept.processor()
    assert kept.processor().count("\n") < 5, "one processor should speak for all"
    assert "flags" in kept.processor() or "Features" in kept.processor()


def test_marking_where_nothing_can_be_written_is_passed_over(package):
    kept.mark_whole(package / "nowhere")
    assert not kept.is_whole(package / "nowhere")


def test_code_of_other_sources_is_forgotten_and_nothing_else(package):
    place = kept.directory()
    for directory in (place, place.with_name("compiled-0123"), place.with_name("other")):
        directory.mkdir(parents=True)
    kept.forget_others(place)
    assert sorted(path.name for path in kept.KEPT.iterdir()) == sorted([place.name, "other"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a process as another user")
@pytest.mark.parametrize("has_home", [True, False])
def test_who_may_not_write_there_has_a_copy_and_who_has_no_home_does_without(has_home):
    """Several processes at once, as a check has them."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to others
        everybodys = Path(directory)
        everybodys.chmod(0o755)
        shutil.copytree(ROOT / "maglev", everybodys / "maglev", ignore=shutil.ignore_patterns("__pycache__"))
        script = "from maglev import kept; place = kept.directory(); place.mkdir(parents=True); kept.mark_whole(place)"
        told = {"cwd": directory, "env": {"PYTHONDONTWRITEBYTECODE": "1"}, "check": True}
        python = os.path.realpath(sys.executable)
        subprocess.run([python, "-c", script], **told)
        (kept_there,) = (everybodys / "maglev" / "__pycache__").iterdir()
        (kept_there / "code").write_text("machine code")
        home = everybodys / "home"
        home.mkdir()
        if has_home:
            shutil.chown(home, NOBODY)
        told["env"]["HOME"] = str(home)
        ask = [python, "-c", "from maglev import kept; print(kept.for_this_user())"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "user": NOBODY, "extra_groups": []}
        del told["check"]
        asked = [subprocess.Popen(ask, **told, **pipes) for _ in range(4)]
        answers = {answer.communicate() for answer in asked}
        expected = home / ".cache" / "maglev-lab" / kept_there.name if has_home else kept_there
        assert answers == {(f"{expected}\n", "")}
        assert (expected / "code").read_text() == "machine code"
        assert list(expected.parent.iterdir()) == [expected]


def rehearse(*arguments, **environment):
    """Goes through all compiled code in a process of its own; returns what Numba says of what it keeps."""
    command = [sys.executable, *arguments]
    environment = {**os.environ, "NUMBA_DEBUG_CACHE": "1", **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_after_a_rehearsal_nothing_is_compiled_and_this_is_known():
    rehearse("-m", "maglev.engine.rehearsal")
    assert subprocess.run([sys.executable, "-m", "maglev.kept"], cwd=ROOT, check=False).returncode == 0
    said = rehearse("-c", "from maglev.engine.rehearsal import rehearse; rehearse()")
    assert said.count("data loaded") > 5, f"machine code should have come from where it is kept: {said[-500:]}"
    assert "data saved" not in said, f"nothing should have been compiled: {said[-500:]}"


def test_asking_needs_nothing_but_the_standard_library():
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(ROOT)!r}); import maglev.kept"]
    assert subprocess.run(command, check=False).returncode == 0
