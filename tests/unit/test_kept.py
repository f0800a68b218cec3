"""Machine code that is kept: told by its sources and its processor, complete or not; after set-up none is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maglev import kept

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
