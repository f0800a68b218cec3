"""The laboratory for pytest: a fixture `lab`, and the marker `topology(name, **options)` that says which.

    import pytest

    pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

    def test_a_crash_breaks_no_connection(lab):
        with lab.connections(100) as conns:
            lab.kill("m1")
            lab.wait_converged()
            conns.wait_settled()
        assert conns.broken == 0, conns.report()

Tests of one module that ask for the same topology share a running lab; after each test its faults are undone. When
a test fails, logs, routes, tables and captures of every node are kept in `evidence/`, under the test's file and name.
The plugin is found wherever the project's Python runs pytest (docs/own-tests.md). Options:

    --lab-pcap           keep the captures of tests that pass, too
    --lab-report         write a report of each test, an HTML page
    --lab-cli-on-error   open a console on the lab when a test has failed
    --lab-keep           leave the lab running when a test has failed
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .laboratory import Lab  # at run time imported late: tests that run no lab need no Mininet

EVIDENCE = "evidence"
FAILED = pytest.StashKey[bool]()
DEFAULT_TOPOLOGY = "rack"
OPTIONS = {
    "--lab-pcap": "keep what was captured on every node, also of tests that pass",
    "--lab-report": "write a report of each test, an HTML page, into its evidence",
    "--lab-cli-on-error": "open a console on the lab when a test has failed",
    "--lab-keep": "leave the lab running when a test has failed, for you to look at",
}


class Running:
    """The one lab that runs in this process, and what it was asked to be."""

    def __init__(self) -> None:
        self._wanted: object = None
        self._lab: Lab | None = None

    def get(self, wanted: tuple[Path, str, tuple[tuple[str, Any], ...]]) -> Lab:
        """Returns the running lab if it is what is wanted, else a new one in its place."""
        if self._lab is None or self._wanted != wanted:
            from . import interrupts
            from .laboratory import Lab

            interrupts.leave_on_signals()  # pytest itself knows Ctrl-C alone
            self.stop()
            self._lab, self._wanted = Lab(wanted[1], **dict(wanted[2])).start(), wanted
        return self._lab

    def stop(self) -> None:
        """Stops the lab, if there is one."""
        lab, self._lab = self._lab, None
        if lab is not None:
            lab.stop()

    def leave(self) -> None:
        """Lets the lab live on without us."""
        lab, self._lab = self._lab, None
        if lab is not None:
            lab.leave_running()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lab", "Maglev Lab")
    for name, what in OPTIONS.items():
        group.addoption(name, action="store_true", help=what)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "topology(name, **options): the topology that the fixture `lab` runs")
    if config.getoption("--lab-cli-on-error") and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--lab-cli-on-error needs the terminal, which processes of -n do not have: use one")


@pytest.fixture(scope="session")
def _running_lab() -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


@pytest.fixture
def lab(request: pytest.FixtureRequest, _running_lab: Running) -> Iterator[Lab]:
    """A running lab of the marked topology, with everything up; faults are undone after the test."""
    if os.geteuid() != 0:
        pytest.skip("a lab makes network namespaces, which only root may do")
    marker = request.node.get_closest_marker("topology")
    name = marker.args[0] if marker and marker.args else DEFAULT_TOPOLOGY
    options = tuple(sorted(marker.kwargs.items())) if marker else ()
    lab = _running_lab.get((request.path, name, options))
    watch = Watch(lab, request.config, evidence_of(request.node))
    try:
        yield lab
    finally:
        failed = request.node.stash.get(FAILED, False)
        watch.end(failed)
        if failed and request.config.getoption("--lab-keep"):
            _running_lab.leave()
        else:
            _restore(lab, _running_lab)


class Watch:
    """Captures while a test runs, and what is kept of it afterwards.

    Everything is gathered in a directory that has the lab's id in its name and its place in the ledger: several
    processes may run tests in one directory, and one that is killed leaves nothing that `maglab clean` does not find.
    """

    def __init__(self, lab: Lab, config: pytest.Config, place: Path) -> None:
        from .capture import Captures

        self._lab, self._place = lab, place
        self._pcap, self._report = config.getoption("--lab-pcap"), config.getoption("--lab-report")
        self._root = Path(config.rootpath) / EVIDENCE
        _remove(place, self._root)
        self._gathered, captures = self._root / f".{lab.id}", self._root / f".{lab.id}-captures"
        for path in (self._gathered, captures):
            lab.site.enter_path(path)
        self._captures = Captures.of(lab, captures)
        self._recording = lab.recording() if self._report else None

    def end(self, failed: bool) -> None:
        """Keeps what is to be kept, in its place; captures that nobody wants are not."""
        from . import evidence

        self._gathered.mkdir(parents=True, exist_ok=True)
        if failed:
            evidence.keep(self._lab, self._gathered)
        if self._recording is not None:
            self._recording.stop()
            self._lab.report(self._gathered / "report.html")
        if failed or self._pcap:
            self._captures.keep(self._gathered / "captures")
        else:
            self._captures.discard()
        if any(self._gathered.iterdir()):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._gathered.replace(self._place)
        _remove(self._gathered, self._root)


def evidence_of(item: pytest.Item) -> Path:
    """Returns where a test's evidence is kept: under its file's name and its own, which no two tests share."""
    file, _, name = item.nodeid.replace("..", "_").partition("::")
    steps = (re.sub(r"[^\w.-]+", "_", step) for step in [*file.split("/"), name] if step)
    return Path(item.config.rootpath).joinpath(EVIDENCE, *steps)


def _remove(place: Path, root: Path) -> None:
    """Removes a directory, and those above it, up to `root`, in which nothing else is left."""
    shutil.rmtree(place, ignore_errors=True)
    for above in place.parents:
        try:
            above.rmdir()
        except OSError:
            return
        if above == root:
            return


def _restore(lab: Lab, running: Running) -> None:
    """Undoes a test's faults; a lab that does not come back is stopped, and the next test gets a new one."""
    try:
        lab.restore()
    except Exception:
        running.stop()
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed and "lab" in getattr(item, "fixturenames", ()):
        item.stash[FAILED] = True
        report.sections.append(("evidence", f"logs, routes, tables and captures of every node: {evidence_of(item)}"))
        lab = getattr(item, "funcargs", {}).get("lab")
        if lab is not None and call.when == "call" and item.config.getoption("--lab-keep"):
            kept = f"the lab {lab.id} is left running: maglab ps {lab.id} shows it, maglab clean {lab.id} takes it away"
            report.sections.append(("lab", kept))
    return report


def pytest_exception_interact(node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]) -> None:
    """Opens a console on a lab whose test has failed, as `--pdb` opens its own."""
    lab = getattr(node, "funcargs", {}).get("lab")
    if lab is None or call.when != "call" or not node.config.getoption("--lab-cli-on-error"):
        return
    with _terminal(node.config):
        if sys.stdin.isatty():
            print(f"\n{node.nodeid} has failed: {call.excinfo and call.excinfo.exconly()}")
            from .console import converse

            converse(lab)


@contextlib.contextmanager
def _terminal(config: pytest.Config) -> Iterator[None]:
    """Gives the terminal back meanwhile, its input as well, which pytest holds while tests run."""
    capturing = config.pluginmanager.getplugin("capturemanager")
    if capturing is None:
        yield
        return
    capturing.suspend(in_=True)
    try:
        yield
    finally:
        capturing.resume()
