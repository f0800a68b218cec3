"""The judge: what it says of solutions that are right, wrong, not there yet, and of those that fight it."""

from __future__ import annotations

import csv
import json
import os
import textwrap

import pytest
import typer

from lab.classroom import commands, trial
from lab.classroom.criteria import Case, Wrong, shown
from lab.classroom.exercise import Exercise
from lab.classroom.grades import gradescope
from lab.classroom.judge import Judgement, check
from lab.classroom.leaderboard import keep
from lab.classroom.own_work import not_written
from lab.classroom.runner import BORROWS, NO_LAB
from lab.errors import WrongUse
from lab.waiting import wait_until

CHECK = '''
from lab.classroom import criterion

REFERENCE = "maglev.primes"

@criterion(step=1, hint="two is one", seconds=1)
def knows_primes(student, case):
    """Primes are known."""
    for number, prime in ((7, True), (8, False)):
        case.expect(case.call(student.is_prime, number), prime, f"whether {number} is a prime")

@criterion(step=2, hint="count up and down", seconds=1)
def finds_the_nearest(student, case):
    """The nearest primes are found."""
    case.expect(list(case.call(student.nearest_primes, 8)), [7, 11], "the primes next to 8")
'''
POINTS = "exercise,criterion,points\n01_primes,knows_primes,3\n01_primes,finds_the_nearest,2\n"
RIGHT = "def is_prime(n): return n == 7\ndef nearest_primes(n): return (7, 11)\n"


@pytest.fixture
def exercise(tmp_path):
    """A small exercise of two criteria."""
    directory = tmp_path / "exercises" / "01_primes"
    directory.mkdir(parents=True)
    (directory.parent / "points.csv").write_text(POINTS)
    (directory / "check.py").write_text(CHECK)
    (directory / "README.md").write_text("# 1. Primes\n")
    (directory / "WRITEUP.md").write_text("Why?\n")
    (directory / "starter.py").write_text("def is_prime(n): raise NotImplementedError('step 1: divide')\n")
    return Exercise(directory)


@pytest.fixture
def judged(exercise, tmp_path):
    """Returns a function that judges a solution given as text; returns the judgements by their criteria."""

    def judge(text):
        solution = tmp_path / "solution.py"
        solution.write_text(textwrap.dedent(text))
        return {each.criterion: each for each in check(exercise, solution, "work", 1).judgements}

    return judge


def test_a_right_one_gets_its_points(judged):
    found = judged(RIGHT)
    assert [(each.status, each.points, each.worth) for each in found.values()] == [("passed", 3, 3), ("passed", 2, 2)]


def test_a_check_uses_a_module_that_stands_beside_it(exercise, judged):
    (exercise.directory / "known.py").write_text("NUMBERS = ((7, True), (8, False))\n")
    loaded = 'from lab.classroom.exercise import beside\nknown = beside(__file__, "known")\n'
    (exercise.directory / "check.py").write_text(loaded + CHECK.replace("((7, True), (8, False))", "known.NUMBERS"))
    assert judged(RIGHT)["knows_primes"].status == "passed"
    assert judged(RIGHT.replace("n == 7", "True"))["knows_primes"].status == "wrong"


def test_a_wrong_one_is_told_what_was_done_what_was_expected_and_what_came(judged):
    found = judged(RIGHT.replace("n == 7", "True"))["knows_primes"]
    assert (found.status, found.points) == ("wrong", 0)
    assert found.message == "expected whether 8 is a prime: False, got True"
    assert found.steps == ("called is_prime(7)", "called is_prime(8)")
    assert "hint: two is one" in "\n".join(found.lines())


def test_a_gap_is_no_fault(judged):
    found = judged("def is_prime(n): raise NotImplementedError('step 1: divide')\n")
    assert found["knows_primes"].status == "missing"
    assert found["knows_primes"].told == "not yet implemented: step 1: divide"
    assert found["finds_the_nearest"].status == "crashed", "a function that is not there at all is one"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("while True: pass", "timed out", "is there a loop that does not end?"),
        ("raise ValueError('no idea')", "crashed", "ValueError at line 2 of solution.py: no idea"),
        ("import struct; struct.unpack('!H', b'')", "crashed", "struct.error at line 2 of solution.py: "),
        ("import sys; sys.exit(0)", "crashed", "SystemExit(0)"),
        ("import os; os._exit(0)", "crashed", "it ended the program, with status 0"),
        ("import os, signal; os.kill(os.getpid(), 9)", "crashed", "it was ended by SIGKILL"),
        ("x = [0] * (10 ** 10)", "crashed", "more than the 2 GB of memory"),
        ("return is_prime(n)", "crashed", "RecursionError"),
        ("import os; os.closerange(0, 256); return True", "crashed", ""),
        ("import os\n    for fd in range(3, 64):\n        try: os.write(fd, b'passed')\n        except OSError: pass\n"
         "    return True", "crashed", ""),
        ("raise KeyboardInterrupt", "crashed", "KeyboardInterrupt"),
        ("import threading\n    threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\n    return n == 7",
         "passed", ""),
        ("import subprocess; subprocess.Popen(['sleep', '600']); return n == 7", "passed", ""),
    ],
)  # fmt: skip
def test_whatever_it_does_it_is_judged(judged, body, status, says):
    found = judged(f"def is_prime(n):\n    {body}\ndef nearest_primes(n): return (7, 11)\n")
    assert found["knows_primes"].status == status, found["knows_primes"]
    assert says in found["knows_primes"].message
    assert found["finds_the_nearest"].status == "passed", "one fault leaves the other criteria alone"


def test_it_is_judged_by_one_thread_so_that_without_root_it_may_have_a_namespace(judged):
    found = judged("import os, numpy\ndef is_prime(n): return n == 7 and len(os.listdir('/proc/self/task')) == 1\n")
    assert found["knows_primes"].status == "passed", found["knows_primes"].told


def test_what_it_prints_is_shown_and_bounded(judged):
    found = judged("def is_prime(n):\n    print('looking at', n)\n    print('x' * 100_000)\n    return True\n")
    assert len(found["knows_primes"].output) <= 4096
    assert "xxx" in found["knows_primes"].output


@pytest.mark.parametrize("text", ["def f(:", "import nowhere", "1 / 0"])
def test_a_file_that_cannot_be_run_fails_every_criterion_in_a_sentence(judged, text):
    found = judged(text)
    assert {each.status for each in found.values()} == {"crashed"}
    assert all("solution.py" in each.message for each in found.values())


FORGED = {
    "patched": """
        import lab.classroom.criteria as criteria
        criteria.Case.expect = criteria.Case.expect_that = criteria.Case.wrong = lambda *words: None
    """,
    "other code": """
        import lab.classroom.criteria as criteria
        criteria.Case.expect.__code__ = (lambda *words: None).__code__
    """,
    "another verdict": """
        import json
        theirs = json.JSONEncoder.encode
        json.JSONEncoder.encode = lambda self, verdict: theirs(self, {**verdict, "status": "passed"})
    """,
    "builtins": """
        import builtins
        builtins.bool = lambda *words: True
    """,
}


@pytest.mark.parametrize("how", FORGED)
def test_who_changes_the_check_does_not_pass(judged, how):
    found = judged(textwrap.dedent(FORGED[how]) + "def is_prime(n): return True\n")["knows_primes"]
    assert (found.status, found.points) == ("crashed", 0), found
    assert found.message.startswith("it changed ")
    assert found.message.endswith(", by which it is judged")


@pytest.mark.parametrize("ending", ["", "os._exit(0)"])
def test_a_verdict_that_is_written_by_the_solution_does_not_count(judged, ending):
    found = judged(f"""
        import json, os
        verdict = {{"status": "passed", "message": "", "steps": [], "measured": {{}}, "secret": ""}}
        for descriptor in range(3, 64):
            try: os.write(descriptor, json.dumps(verdict).encode() + b"\\n")
            except OSError: pass
        {ending}
        def is_prime(n): return True
    """)["knows_primes"]
    assert (found.status, found.points) == ("crashed", 0), found
    assert found.message == "it wrote into the grader's own files"


BORROWED = {
    "imported": (
        "from maglev.primes import is_prime",
        "is_prime is imported from maglev.primes, which is the reference",
    ),
    "all": ("from maglev.primes import *", "is_prime is imported from maglev.primes, which is the reference"),
    "elsewhere": ("from maglev.config_forwarder import is_prime", "is_prime is imported from maglev.primes, which is"),
    "called": (
        "import maglev.primes\ndef is_prime(n): return maglev.primes.is_prime(n)",
        "line 2 of solution.py calls maglev.primes.is_prime, which is the reference: write it yourself",
    ),
    "swallowed": (
        "import maglev.primes as p\ndef is_prime(n):\n try: return p.is_prime(n)\n except Exception: return True",
        "line 3 of solution.py calls maglev.primes.is_prime, which is the reference",
    ),
    "unwrapped": (
        "import maglev.primes as p\nis_prime = getattr(p.is_prime, '__wrapped__', p.is_prime)",
        "is_prime is imported from maglev.primes, which is the reference",
    ),
    "in a string": (
        "import maglev.primes\ndef is_prime(n): return eval('maglev.primes.is_prime(n)')",
        "line 1 of solution.py calls maglev.primes.is_prime, which is the reference",
    ),
}


@pytest.mark.parametrize("how", BORROWED)
def test_the_reference_is_no_solution(judged, how):
    solution, says = BORROWED[how]
    found = judged(f"{solution}\ndef nearest_primes(n): return (7, 11)\n")
    assert found["knows_primes"].status == "wrong"
    assert found["knows_primes"].message.startswith(says)
    assert found["finds_the_nearest"].status == "passed", "what one has written oneself counts"


def test_nobody_may_borrow_by_the_environment(judged, monkeypatch):
    monkeypatch.setenv(BORROWS, "yes")
    assert judged("from maglev.primes import is_prime\n")["knows_primes"].status == "wrong"


def test_what_is_given_may_be_used(exercise, judged):
    """`nearest_primes` is no gap of this starter; and the reference's own calls of what is one are its own business."""
    found = judged("from maglev.primes import nearest_primes\ndef is_prime(n): return n == 7\n")
    assert [each.status for each in found.values()] == ["passed", "passed"]
    check_py = exercise.directory / "check.py"
    check_py.write_text(check_py.read_text() + '\nGIVEN = ("maglev.primes",)\n')
    assert judged("from maglev.primes import *\n")["knows_primes"].status == "passed"


CLASSES = """
from lab.classroom import criterion

REFERENCE = "maglev.limits"

@criterion(step=1, hint="", seconds=1)
def takes(student, case):
    \"\"\"It takes.\"\"\"
    case.expect(student.Budget(1).take(0.0), True, "whether it takes")
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("pass", "Budget.take is inherited, and not written"),
        ("def take(self, now): return super().take(now)", "line 3 of solution.py calls maglev.limits.Budget.take"),
        ("take = Given.take", "Budget.take is inherited, and not written"),
        ("def take(self, now): return True", ""),
    ],
)
def test_methods_are_written_and_not_inherited(exercise, judged, body, says):
    (exercise.directory / "check.py").write_text(CLASSES)
    (exercise.directory / "starter.py").write_text(
        "class Budget:\n    def take(self, now): raise NotImplementedError('step 1: take')\n"
    )
    found = judged(f"from maglev.limits import Budget as Given\nclass Budget(Given):\n    {body}\n")["takes"]
    assert (found.status == "passed") == (not says), found
    assert found.message.startswith(says)
    alone = judged("from maglev.limits import Budget\n")["takes"]
    assert alone.message == "Budget is imported from maglev.limits, which is the reference: write it yourself"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Budget(Given): pass\n", "Budget.take is inherited, and not written"),
        ("class Budget(Given):\n    def take(self, now): return True\n", ""),
        ("class Mine:\n    def take(self, now): return True\nclass Budget(Mine, Given): pass\n", ""),
        ("Budget = Given\n", "Budget.take is inherited, and not written"),
        ("", "Budget is imported from maglev.limits"),
        ("from maglev.primes import is_prime\n", "is_prime is imported from maglev.primes"),
        ("from maglev.primes import *\n", "is_prime is imported from maglev.primes"),
        ("from maglev.primes import is_prime as theirs\ndef is_prime(n): return n == 7\n", ""),
        ("from maglev.primes import *\nis_prime = lambda n: n == 7\n", ""),
        ("def f(:", ""),
    ],
)
def test_it_is_known_without_running_it_what_is_not_written(tmp_path, text, says):
    """For criteria that need a lab: the process that judges there runs nothing of a student's."""
    solution = tmp_path / "solution.py"
    imports = "" if "prime" in text or "f(:" in text else "from maglev.limits import Budget as Given, Budget\n"
    solution.write_text(imports + text)
    wanted, references = ["Budget.take", "is_prime"], ("maglev.limits", "maglev.primes")
    found = not_written(solution, wanted, references)
    assert found.startswith(says)
    assert bool(found) == bool(says)


STARTED = {
    "a child": "import subprocess\ndef is_prime(n):\n    subprocess.Popen(['sleep', '601'])\n    while True: pass\n",
    "a daemon": (
        "import os, subprocess\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        subprocess.Popen(['sleep', '601'], start_new_session=True)\n"
        "    os._exit(0)\n"
        "def is_prime(n): return n == 7\n"
    ),
}


@pytest.mark.parametrize("how", STARTED)
def test_judging_leaves_no_process(judged, how):
    before = set(os.listdir("/proc"))
    judged(STARTED[how])

    def sleeping():
        new = set(os.listdir("/proc")) - before
        return " ".join(pid for pid in new if pid.isdigit() and _command(pid) == "sleep\x00601\x00")

    wait_until(sleeping, 5.0, "the end of what it has started")  # a process that is killed lives for a moment


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


SEVERAL = '''
from lab.classroom import criterion

REFERENCE = ("maglev.primes", "maglev.flow")

@criterion(step=1, hint="read both")
def has_both(student, case):
    """Names of both modules are there."""
    case.expect(case.call(student.is_prime, 7), True, "whether 7 is a prime")
    case.expect(case.call(student.is_v4, bytes(16)), False, "whether sixteen zeros are an IPv4 address")

@criterion(step=2, hint="install it")
def needs_what_is_not_here(student, case):
    """Something rare is content."""
    case.skip("the rare thing is not installed here")

@criterion(step=2, hint="install it", lacks=lambda: "the other is not either")
def never_begins(student, case):
    """Something else is content."""
    case.wrong("it has begun")
'''


def test_one_file_may_stand_for_several_modules_and_so_does_the_reference(exercise, tmp_path):
    (exercise.directory / "check.py").write_text(SEVERAL)
    solution = tmp_path / "solution.py"
    solution.write_text("from maglev.flow import is_v4\ndef is_prime(n): return True\n")
    for judged in (check(exercise, None, "reference", 1), check(exercise, solution, "work", 1)):
        assert judged.judgements[0].passed, judged.judgements[0].message
    assert exercise.check().student(solution) == {"maglev.primes": solution, "maglev.flow": solution}
    assert exercise.check().student(None) == {}, "a lab runs the reference as it is"


def test_what_cannot_be_judged_here_counts_for_nothing(exercise, tmp_path):
    (exercise.directory / "check.py").write_text(SEVERAL)
    exercise.directory.with_name("points.csv").write_text(
        "exercise,criterion,points\n01_primes,has_both,3\n01_primes,needs_what_is_not_here,2\n"
        "01_primes,never_begins,2\n"
    )
    found = check(exercise, None, "reference", 1)
    assert found.passed
    assert found.points == (3, 3)
    assert list(found.judgements[1].lines()) == [
        "skip  Something rare is content.  [0/0]", "      the rare thing is not installed here",
    ]  # fmt: skip
    assert found.judgements[2].message == "the other is not either"


NOWHERE = """
from lab.classroom import criterion

REFERENCE = "maglev.primes"

@criterion(step=1, hint="look around", lab={"topology": "nowhere"})
def goes_nowhere(lab, case):
    \"\"\"Something happens in a lab that there is not.\"\"\"
"""


def test_a_lab_that_cannot_be_built_says_why(exercise):
    (exercise.directory / "check.py").write_text(NOWHERE)
    (found,) = check(exercise, None, "reference", 1).judgements
    assert "nowhere" in found.message
    assert found.status == "crashed"


MEASURES = """
from lab.classroom import criterion

REFERENCE = "maglev.primes"

@criterion(step=1, hint="be quick")
def is_measured(student, case):
    \"\"\"Something is measured.\"\"\"
    case.measure("pace", student.PACE, 1)
    case.measure("nonsense", float("nan"), 1)
"""


def test_what_is_measured_is_told_and_kept_in_a_leaderboard_beside_the_solution(exercise, tmp_path):
    (exercise.directory / "check.py").write_text(MEASURES)
    solution = tmp_path / "solution.py"
    for pace in (0.5, 0.25, 0.5):
        solution.write_text(f"PACE = {pace}\n")
        found = check(exercise, solution, "work", 1)
        board = keep(solution, found.measured)
    assert found.measured == {"pace": (0.5, 1.0)}, "what is no number is left out"
    assert list(found.judgements[0].lines())[1].split() == ["pace", "0.5", "Maglev", "hashing", "1"]
    with open(board, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["pace"] for row in rows] == ["1", "0.25", "0.5"], "the reference, and each version once"
    assert gradescope([found])["leaderboard"] == [{"name": "pace", "value": 0.5, "order": "asc"}]


def test_a_leaderboard_that_cannot_be_written_keeps_no_points_from_anybody(exercise, tmp_path, monkeypatch, capsys):
    (exercise.directory / "check.py").write_text(MEASURES)
    (exercise.directory.parent / "points.csv").write_text("exercise,criterion,points\n01_primes,is_measured,3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "find", lambda number: exercise)
    solution = exercise.begin(tmp_path)
    solution.write_text("PACE = 0.5\n")
    solution.with_name("leaderboard.new").mkdir()  # where it is written first
    with pytest.raises(typer.Exit) as ended:
        commands.check("1")
    told = capsys.readouterr().out
    assert ended.value.exit_code == 0
    assert f"cannot write {solution.with_name('leaderboard.csv')}" in told
    assert "3 of 3 points" in told


def test_where_no_lab_can_be_started_no_hint_is_given():
    asked = {"criterion": "lives", "sentence": "It lives.", "step": 1, "hint": "look at maglab top", "steps": ()}
    judged = Judgement(**asked, status=NO_LAB, message="run it with sudo", output="", points=0, worth=3, seconds=0.1)
    assert list(judged.lines()) == ["FAIL  It lives.  [0/3]", "      run it with sudo"]


def test_gradescope_gets_a_test_for_each_criterion(exercise, tmp_path):
    solution = tmp_path / "solution.py"
    solution.write_text("def is_prime(n): return n == 7\n")
    document = json.loads(json.dumps(gradescope([check(exercise, solution, "work", 1)])))
    assert document["score"] == 3
    assert [(test["name"], test["score"], test["max_score"]) for test in document["tests"]] == [
        ("Primes are known.", 3, 3), ("The nearest primes are found.", 0, 2),
    ]  # fmt: skip


# Beginning


def test_beginning_copies_the_starter_and_the_questions(exercise, tmp_path):
    path = exercise.begin(tmp_path)
    assert path == tmp_path / "work" / "01_primes" / "solution.py"
    assert path.read_text() == exercise.starter.read_text()
    assert (path.parent / "WRITEUP.md").read_text() == "Why?\n"


def test_nothing_that_was_written_is_lost(exercise, tmp_path):
    path = exercise.begin(tmp_path)
    path.write_text("mine")
    with pytest.raises(WrongUse, match="--again"):
        exercise.begin(tmp_path)
    exercise.begin(tmp_path, again=True)
    assert path.with_name("solution.1.py").read_text() == "mine"
    assert path.read_text() == exercise.starter.read_text()


def test_what_has_not_been_begun_cannot_be_judged(exercise, tmp_path):
    with pytest.raises(WrongUse, match="run maglab start 1"):
        exercise.solution("work", tmp_path)


# Cases


def test_bytes_are_shown_in_hex_and_long_things_cut():
    assert shown(b"\x00\xff") == "00 ff"
    assert len(shown(list(range(1000)))) < 250


def test_arrays_equal_lists():
    numpy = pytest.importorskip("numpy")
    Case(1).expect(numpy.array([1, 2]), [1, 2], "both")
    Case(1).expect([1, 2], numpy.array([1, 2]), "both")
    with pytest.raises(Wrong):
        Case(1).expect(numpy.array([1, 2]), [1, 3], "both")


def test_an_error_that_must_come():
    Case(1).expect_error(ValueError, int, "x")
    with pytest.raises(Wrong, match="expected ValueError, got 1"):
        Case(1).expect_error(ValueError, int, "1")


@pytest.mark.parametrize(
    ("lab", "status", "said"),
    [("", "timed out", "the check was not ready"), (', lab={"topology": "rack"}', NO_LAB, "the lab was not ready")],
)
def test_what_takes_too_long_to_begin_is_not_blamed_on_the_students_loops(
    exercise, judged, monkeypatch, lab, status, said
):
    """As on a machine on which forty others are at work."""
    monkeypatch.setattr(trial, "STARTUP_S", 0.0)
    monkeypatch.setattr(trial, "LAB_STARTUP_S", 0.0)
    (exercise.directory / "check.py").write_text(CHECK.replace(", seconds=1)", f", seconds=1{lab})"))
    for each in judged(RIGHT).values():
        assert (each.status, each.message) == (status, f"{said} after 0 s: is this machine busy?")
