"""The exercises' notebooks: run from the first cell to the last in a kernel, with and without a student's file.

JupyterLab itself is the student's affair; what is tested here is what it would run.
"""

from __future__ import annotations

import shutil
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from lab.classroom.exercise import EXERCISES

NOTEBOOKS = sorted(EXERCISES.glob("*/notebook.ipynb"))
TIMEOUT_S = 120
WRONG_THEORY = """
import sys

from maglev.persistence import Shares

print(sys.executable)

def expected(before, after, dead, moved, recorded):
    return Shares(0.0, 0.0)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns a function that runs an exercise's notebook where a student would, and returns what it printed.

    A student's file is the text `solution`, if there is one.
    """
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def run(exercise, solution=None):
        directory = tmp_path / "exercises" / exercise
        directory.mkdir(parents=True)
        file = shutil.copy(EXERCISES / exercise / "notebook.ipynb", directory)
        if solution is not None:
            work = tmp_path / "work" / exercise / "solution.py"
            work.parent.mkdir(parents=True)
            work.write_text(solution)
        notebook = nbformat.read(file, as_version=4)
        NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(directory)}}).execute()
        return Printed(notebook)

    return run


class Printed:
    """What a notebook printed, and how many pictures it drew."""

    def __init__(self, notebook):
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        self.text = "".join(output.text for output in outputs if output.output_type == "stream")
        self.errors = [output.text for output in outputs if output.get("name") == "stderr"]
        self.pictures = sum("image/png" in output.get("data", {}) for output in outputs)


def test_there_are_notebooks_for_two_exercises():
    assert [path.parent.name for path in NOTEBOOKS] == ["03_hashing", "09_persistence"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_a_notebook_is_sound_and_has_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None), cell.source
    assert "notebook.ipynb" in (path.parent / "README.md").read_text(), "the README tells of it"


def test_hashing_draws_three_pictures(run):
    printed = run("03_hashing")
    assert printed.errors == []
    assert "before    1 0 1 0 2 2 0\nafter     0 0 0 0 2 2 2\n" in printed.text, "the paper's table 1"
    assert "with Maglev Lab's own functions" in printed.text
    assert printed.pictures == 3


def test_a_students_functions_take_their_place(run):
    printed = run("03_hashing", "def over_provisioning(table, backends):\n    return 0.25\n")
    assert "with your functions" in printed.text
    assert printed.text.count("over-provisioning  25.0 %") == 4


def test_a_gap_stops_the_notebook(run):
    with pytest.raises(CellExecutionError, match="step 1: list the slots"):
        run("03_hashing", (EXERCISES / "03_hashing" / "starter.py").read_text())


def test_theory_and_simulation_agree_in_every_row(run):
    printed = run("09_persistence")
    assert printed.errors == []
    assert (printed.text.count("  yes\n"), printed.text.count("  no\n")) == (20, 0), printed.text
    assert printed.pictures == 2


def test_a_students_theory_is_held_against_simulations_by_this_python(run):
    printed = run("09_persistence", WRONG_THEORY)
    assert f"{sys.executable}\n" in printed.text
    assert printed.text.count("  no\n") > 5, printed.text
