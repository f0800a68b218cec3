"""A student's code in the place of this package's own; each case in a process of its own, for it leaves traces."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def python(tmp_path):
    """Returns a function that runs a program beside a student's file; returns what it prints."""

    def run(student, program, module="maglev.hashing"):
        file = tmp_path / "solution.py"
        file.write_text(textwrap.dedent(student))
        text = "from maglev.swap import swap_in\nfrom pathlib import Path\nimport maglev.forwarder\n"
        text += f"swapped = swap_in({module!r}, Path({str(file)!r}))\n" + textwrap.dedent(program)
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    return run


HASHING = """
    from maglev.hashing import Table, name_hashes
    import numpy as np
    def lookup_table(names, table_size=65537, weights=None):
        return np.zeros(table_size, np.int32)
    def helper(): pass
    def _private(): pass
"""


def test_a_function_is_exchanged_wherever_it_is_held(python):
    program = """
        import maglev.hashing, maglev.baselines, maglev.selection, maglev.vips
        print(swapped)
        print(maglev.hashing.lookup_table(["a", "b"], 7).tolist())
        print(maglev.baselines.TABLES["maglev"](["a", "b"], 7).tolist())
    """
    assert python(HASHING, program).splitlines() == ["['lookup_table']", str([0] * 7), str([0] * 7)]


def test_what_the_student_only_imports_stays(python):
    assert "'Table'" not in python(HASHING, "print(swapped)")


def test_a_class_is_exchanged_where_others_make_its_objects(python):
    student = """
        class ConnectionTable:
            def __init__(self, *arguments): self.made_by = "student"
    """
    program = """
        import maglev.selection
        print(maglev.selection.ConnectionTable().made_by)
    """
    assert python(student, program, "maglev.conntrack").strip() == "student"


@pytest.mark.parametrize(
    ("student", "says"),
    [("def f(:", "cannot be loaded: SyntaxError"), ("import nowhere", "cannot be loaded: ModuleNotFoundError")],
)
def test_a_file_that_cannot_be_used_is_said(python, student, says):
    assert says in python(student, "")


def test_one_file_stands_for_two_modules_and_is_run_once(python, tmp_path):
    student = """
        print("run")
        def lookup_table(names, table_size=65537, weights=None): return "theirs"
        class ConnectionTable: pass
    """
    program = f"""
        swapped += swap_in("maglev.conntrack", Path({str(tmp_path / "solution.py")!r}))
        import maglev.conntrack, maglev.hashing
        print(swapped, maglev.conntrack.ConnectionTable.__module__ == maglev.hashing.lookup_table.__module__)
    """
    assert python(student, program).splitlines() == ["run", "['lookup_table', 'ConnectionTable'] True"]


def test_each_process_takes_what_is_meant_for_its_own_package(python, tmp_path, monkeypatch):
    """A router's controller has the functions of `lab` exchanged, its Maglevs those of `maglev`, by one variable."""
    student = """
        def lookup_table(names, table_size=65537, weights=None): return "theirs"
        def group(number, ports, hops): return "theirs"
    """
    file = tmp_path / "solution.py"
    monkeypatch.setenv("MAGLEV_STUDENT", f"lab.sdn.rules={file}:maglev.conntrack={file}")
    program = """
        import lab.sdn.rules, sys
        from maglev.swap import swap_in_from_environment
        print(swap_in_from_environment("maglev"), lab.sdn.rules.group.__module__)
        print(swap_in_from_environment("lab"), lab.sdn.rules.group(1, {}, []))
        print(lab.sdn.rules.rules({}, {}, {"192.0.2.1": []}, {}).groups)
    """
    assert python(student, program).splitlines() == ["[] lab.sdn.rules", "['group'] theirs", "{}"]
