"""Sites: a ledger that survives crashes, processes told from later ones, clean-up that takes its own and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import site as sites_module
from lab.site import ID_VARIABLE, LEDGER, Process, Site, sites
from lab.waiting import wait_until

FOREVER = ["sleep", "1000"]
TIMEOUT_S = 10.0


@pytest.fixture
def run_directory(tmp_path, monkeypatch):
    """Sites live in a directory of this test, so that no root is needed and no lab is seen."""
    directory = tmp_path / "run"
    monkeypatch.setattr(sites_module, "RUN_DIRECTORY", directory)
    return directory


@pytest.fixture
def site(run_directory):
    return Site.create("rack")


@contextmanager
def running(**environment: str) -> Iterator[subprocess.Popen]:
    """A process of ours; it and its like end with the test."""
    with subprocess.Popen(FOREVER, env={**os.environ, **environment}) as process:
        try:
            place, marker = Path(f"/proc/{process.pid}/environ"), environment.get(ID_VARIABLE, "").encode()
            wait_until(
                lambda: "" if marker in place.read_bytes() else "still the parent's", TIMEOUT_S, "its environment"
            )
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen) -> bool:
    """Says whether a process has been killed within the deadline."""
    try:
        return process.wait(TIMEOUT_S) == -9
    except subprocess.TimeoutExpired:
        return False


# A process


def test_a_process_is_alive_until_it_ends():
    with running() as child:
        process = Process.of(child.pid, "sleep")
        assert process.alive
        process.kill()
        assert ended(child)
        assert not process.alive


def test_a_zombie_is_not_alive():
    with running() as child:
        process = Process.of(child.pid, "sleep")
        process.kill()
        state = Path(f"/proc/{child.pid}/stat")
        wait_until(lambda: "" if ") Z " in state.read_text() else "it still runs", TIMEOUT_S, "death")
        assert not process.alive


def test_a_later_process_with_the_same_number_is_not_taken_for_it():
    with running() as child:
        now = Process.of(child.pid, "sleep")
        earlier = Process(child.pid, now.start_ticks - 1, "something that ended long ago")
        assert not earlier.alive
        earlier.kill()
        assert child.poll() is None, "a process was killed that only has the number of one in the ledger"
        assert now.alive


def test_a_process_that_has_gone_can_be_killed_without_harm():
    with running() as child:
        process = Process.of(child.pid, "sleep")
        child.kill()
        child.wait()
    process.kill()
    assert not process.alive


# A site


def test_a_site_has_an_id_a_directory_and_an_owner(site, run_directory):
    assert site.id.startswith("rack-")
    assert site.directory == run_directory / site.id
    assert site.environment[ID_VARIABLE] == site.id
    assert site.owner == Process.of(os.getpid(), "owner")


def test_two_sites_of_one_topology_have_different_ids(run_directory):
    assert Site.create("rack").id != Site.create("rack").id
    assert len(sites()) == 2


def test_without_a_lab_there_are_no_sites(run_directory):
    assert sites() == []


def test_the_ledger_keeps_what_was_entered_in_order(site):
    entries = [Process(10 + number, 99, f"m{number}: bird") for number in range(3)]
    for entry in entries:
        site.enter(entry)
    assert site.ledger()[1:] == entries


@pytest.mark.parametrize("torn", ['{"pid": 12, "sta', "", "[]", "null", '{"pid": 12}', '{"pid": 1, "unknown": 2}'])
def test_a_ledger_line_cut_short_by_a_crash_is_passed_over(site, torn):
    with open(site.directory / LEDGER, "a") as ledger:
        ledger.write(torn + "\n")
    site.enter(Process(11, 99, "after the crash"))
    assert [entry.what for entry in site.ledger()] == ["owner", "after the crash"]


def test_a_site_without_a_ledger_has_no_owner(run_directory):
    bare = Site(run_directory / "rack-bare")
    bare.directory.mkdir(parents=True)
    assert bare.owner is None
    assert bare.ledger() == []


def test_the_owner_is_no_process_of_the_site(site):
    assert site.processes() == []


# Clean-up


def test_clean_kills_what_is_in_the_ledger_and_what_carries_the_id_and_nothing_else(site):
    own, of_another = {ID_VARIABLE: site.id}, {ID_VARIABLE: f"{site.id}0"}
    with running() as entered, running(**own) as carrier, running() as bystander, running(**of_another) as stranger:
        site.enter(Process.of(entered.pid, "m1: bird"))
        assert site.clean() == 2
        assert ended(entered)
        assert ended(carrier)
        assert bystander.poll() is None, "a process was killed that has nothing to do with the lab"
        assert stranger.poll() is None, "a process of another lab was killed, whose id begins alike"
    assert not site.directory.exists()


def test_clean_kills_a_process_only_once_entered_and_carrying(site):
    with running(**{ID_VARIABLE: site.id}) as child:
        site.enter(Process.of(child.pid, "m1: bird"))
        assert [process.pid for process in site.processes()] == [child.pid]
        assert site.clean() == 1
        assert ended(child)


def test_clean_leaves_no_empty_run_directory_but_other_labs_theirs(run_directory):
    first, second = Site.create("rack"), Site.create("rack")
    first.clean()
    assert sites() != []
    second.clean()
    assert not run_directory.exists()


def test_clean_twice_does_no_harm(site):
    site.clean()
    assert site.clean() == 0


def test_clean_gives_up_on_what_cannot_be_killed(site, monkeypatch):
    monkeypatch.setattr(Process, "kill", lambda self: None)
    with running(**{ID_VARIABLE: site.id}):
        began = time.monotonic()
        site.clean(deadline_s=0.1)
        assert time.monotonic() - began < TIMEOUT_S, "clean-up waits for ever for a process that does not die"
    assert not site.directory.exists()


# Files elsewhere, and labs that are kept or being made


def test_clean_removes_the_files_that_were_entered_and_no_others(site, tmp_path):
    directory, file, other = tmp_path / "captures", tmp_path / "one.pcap", tmp_path / "other.pcap"
    for path in (directory, file, tmp_path / "never-made"):
        site.enter_path(path)
    directory.mkdir()
    for path in (directory / "inside", file, other):
        path.touch()
    assert site.owner is not None, "a path is taken for a process"
    site.clean()
    assert not directory.exists()
    assert not file.exists()
    assert other.exists()


def test_a_link_that_was_entered_goes_and_what_it_leads_to_stays(site, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    site.enter_path(link)
    site.clean()
    assert target.is_dir()
    assert not link.is_symlink()


def test_a_lab_that_is_kept_says_so(site):
    assert (site.is_owned, site.is_kept) == (True, False)
    site.keep()
    assert site.is_kept


def test_a_lab_that_is_being_made_is_not_listed_before_it_has_an_owner(run_directory, monkeypatch):
    """Another process lists labs at the very moment between a directory and its signature: it waits."""
    listed, enter = [], Site.enter

    def slowly(self, process):
        listing = subprocess.Popen([sys.executable, "-c", LIST, str(run_directory)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            listing.wait(1.0)
        enter(self, process)
        listed.append(listing)

    monkeypatch.setattr(Site, "enter", slowly)
    site = Site.create("rack")
    said, _ = listed[0].communicate(timeout=TIMEOUT_S)
    assert said.split() == [site.id, str(os.getpid())]


LIST = """
import sys
from pathlib import Path
from lab import site
site.RUN_DIRECTORY = Path(sys.argv[1])
for each in site.sites():
    print(each.id, each.owner.pid)
"""
