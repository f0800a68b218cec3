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
a test fails, logs, routes, tables and captures of every node are kept in `evidence/`, under the test's name.

    pytest -p lab.pytest_plugin
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .laboratory import Lab  # at run time imported late: tests that run no lab need no Mininet

EVIDENCE = "evidence"
FAILED = pytest.StashKey[bool]()
DEFAULT_TOPOLOGY = "rack"


class Running:
    """The one lab that runs, and what it was asked to be."""

    def __init__(self) -> None:
        self._wanted: object = None
        self._lab: Lab | None = None

    def get(self, wanted: tuple[Path, str, tuple[tuple[str, Any], ...]]) -> Lab:
        """Returns the running lab if it is what is wanted, else a new one in its place."""
        if self._lab is None or self._wanted != wanted:
            from .laboratory import Lab

            self.stop()
            self._lab, self._wanted = Lab(wanted[1], **dict(wanted[2])).start(), wanted
        return self._lab

    def stop(self) -> None:
        """Stops the lab, if there is one."""
        lab, self._lab = self._lab, None
        if lab is not None:
            lab.stop()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "topology(name, **options): the topology that the fixture `lab` runs")


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
    from . import evidence
    from .capture import Captures

    marker = request.node.get_closest_marker("topology")
    name = marker.args[0] if marker and marker.args else DEFAULT_TOPOLOGY
    options = tuple(sorted(marker.kwargs.items())) if marker else ()
    lab = _running_lab.get((request.path, name, options))
    kept = Path(request.config.rootpath) / EVIDENCE / re.sub(r"[^\w.-]+", "_", request.node.name)
    shutil.rmtree(kept, ignore_errors=True)
    captures = Captures.of(lab, kept.with_name(f".{lab.id}"))  # another session may run the same test
    try:
        yield lab
    finally:
        if request.node.stash.get(FAILED, False):
            evidence.keep(lab, kept)
            captures.keep(kept / "captures")
        else:
            captures.discard()
            with contextlib.suppress(OSError):
                kept.parent.rmdir()  # unless other tests have left evidence
        _restore(lab, _running_lab)


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
        place = Path(item.config.rootpath) / EVIDENCE / re.sub(r"[^\w.-]+", "_", item.name)
        report.sections.append(("evidence", f"logs, routes, tables and captures of every node: {place}"))
    return report
