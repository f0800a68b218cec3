"""Watching a file on a real file system, in every way in which editors, tools and Kubernetes replace one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from maglev.engine import watch
from maglev.engine.watch import QUIET_S, FileWatch, names_on_the_way

DEADLINE_S = 5.0


class Watched:
    """A file that is watched, and what was read of it at every report: None where it was not there."""

    def __init__(self, file):
        self.file, self.read, self.ended = file, [], []
        self._news = threading.Condition()
        self.watch = FileWatch(file, self._changed, self.ended.append)

    def _changed(self):
        with self._news:
            self.read.append(self.file.read_text() if self.file.exists() else None)
            self._news.notify_all()

    def expect(self, text):
        """Waits until a report found this text; AssertionError with what was found instead."""
        with self._news:
            came = self._news.wait_for(lambda: self.read and self.read[-1] == text, DEADLINE_S)
        assert came, f"should have read {text!r} in the end, but read {self.read}"


@pytest.fixture
def watching():
    """Returns a function that watches a file until the test's end."""
    made = []

    def start(file):
        made.append(Watched(file))
        made[-1].watch.start()
        return made[-1]

    yield start
    for watched in made:
        watched.watch.close()
        assert not watched.ended, f"watching should have gone on, but ended with {watched.ended}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "etc" / "maglev.yaml"
    path.parent.mkdir()
    path.write_text("old")
    return path


def rename_over(file, text):
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(text)
    unfinished.replace(file)


def in_place(file, text):
    file.write_text(text)


def as_vim_does(file, text):
    backup = file.with_name(file.name + "~")
    file.rename(backup)
    file.write_text(text)
    backup.unlink()


def deleted_and_made(file, text):
    file.unlink()
    file.write_text(text)


def copied_over_by_descriptor(file, text):
    descriptor = os.open(file, os.O_WRONLY)
    os.pwrite(descriptor, text.encode(), 0)
    os.ftruncate(descriptor, len(text))
    os.close(descriptor)


WAYS = [rename_over, in_place, as_vim_does, deleted_and_made, copied_over_by_descriptor]


@pytest.mark.parametrize("replace", WAYS, ids=[way.__name__ for way in WAYS])
def test_a_change_is_seen_however_it_is_made_and_so_is_the_next(watching, file, replace):
    watched = watching(file)
    for text in ("new", "newer", "dif", "fer"):
        replace(file, text)
        watched.expect(text)
    assert None not in watched.read, f"a file that is replaced is not gone, but was reported as {watched.read}"


def test_a_change_before_the_start_is_seen(file):
    watched = Watched(file)
    rename_over(file, "meanwhile")
    watched.watch.start()
    watched.expect("meanwhile")
    watched.watch.close()


def test_deletion_and_return_are_seen(watching, file):
    watched = watching(file)
    file.unlink()
    watched.expect(None)
    file.write_text("back")
    watched.expect("back")


def test_a_file_that_is_not_there_yet_is_seen_when_it_comes(watching, tmp_path):
    file = tmp_path / "not" / "yet" / "maglev.yaml"
    watched = watching(file)
    file.parent.mkdir(parents=True)
    file.write_text("there")
    watched.expect("there")


def test_its_directory_may_go_and_come_back(watching, file):
    watched = watching(file)
    aside = file.parent.with_name("aside")
    file.parent.rename(aside)
    watched.expect(None)
    (aside / file.name).write_text("changed where nobody looks")
    aside.rename(file.parent)
    watched.expect("changed where nobody looks")
    rename_over(file, "and here again")
    watched.expect("and here again")


def mounted(volume, version, text):
    """Writes a version into a volume and makes it the one that is seen, as Kubernetes does (AtomicWriter)."""
    (volume / version).mkdir()
    (volume / version / "maglev.yaml").write_text(text)
    (volume / "..data_tmp").symlink_to(version)
    (volume / "..data_tmp").replace(volume / "..data")


def test_a_configmap_of_kubernetes_is_followed(watching, tmp_path):
    mounted(tmp_path, "..2026_1", "one")
    (tmp_path / "maglev.yaml").symlink_to("..data/maglev.yaml")
    watched = watching(tmp_path / "maglev.yaml")
    for number, text in ((2, "two"), (3, "three"), (4, "four")):
        mounted(tmp_path, f"..2026_{number}", text)
        watched.expect(text)
        for old in (tmp_path / f"..2026_{number - 1}" / "maglev.yaml", tmp_path / f"..2026_{number - 1}"):
            old.unlink() if old.is_file() else old.rmdir()
    assert watched.read == ["two", "three", "four"], f"each swap is one change, but they were read as {watched.read}"


def test_a_link_is_followed_to_another_directory_and_back(watching, tmp_path):
    for release in ("a", "b"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "maglev.yaml").write_text(release)
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "a")
    watched = watching(current / "maglev.yaml")
    (tmp_path / "next").symlink_to("b")
    (tmp_path / "next").replace(current)
    watched.expect("b")
    rename_over(tmp_path / "b" / "maglev.yaml", "b, changed")
    watched.expect("b, changed")
    (tmp_path / "a" / "maglev.yaml").write_text("nobody's any more")
    rename_over(tmp_path / "b" / "maglev.yaml", "b, again")
    watched.expect("b, again")
    assert watched.read == ["b", "b, changed", "b, again"]


def test_several_steps_are_one_change(watching, file, monkeypatch):
    watched = watching(file)
    rename_over(file, "first")
    watched.expect("first")  # now it is at work, and not about to look for the first time
    monkeypatch.setattr(watch, "QUIET_S", 1.0)  # the steps are not to be further apart than this, on a busy machine
    with file.open("w") as unfinished:
        for part in ("half ", "and ", "half"):
            unfinished.write(part)
            unfinished.flush()
    rename_over(file, "at last")
    watched.expect("at last")
    assert watched.read == ["first", "at last"], f"steps in a row should be one change, but were read as {watched.read}"


def test_a_file_that_is_being_written_is_not_read_before_it_is_closed(watching, file):
    watched = watching(file)
    rename_over(file, "first")
    watched.expect("first")
    with file.open("w") as unfinished:
        unfinished.write("half ")
        unfinished.flush()
        paused_until = time.monotonic() + 4 * QUIET_S
        while time.monotonic() < paused_until:  # a writer that takes its time: nothing must happen meanwhile
            assert watched.read == ["first"], f"half a file was read: {watched.read}"
            time.sleep(QUIET_S / 10)
        unfinished.write("whole")
    watched.expect("half whole")


def test_other_files_are_no_news(watching, file):
    watched = watching(file)
    for number in range(20):
        (file.parent / f"other{number}").write_text("x")
    (file.parent / "other1").unlink()
    rename_over(file, "news")
    watched.expect("news")
    assert watched.read == ["news"]


def test_more_events_than_the_kernel_keeps_hide_no_change(watching, file, monkeypatch):
    go_on = threading.Event()
    watched = watching(file)
    monkeypatch.setattr(watched.watch, "_on_change", lambda: (watched._changed(), go_on.wait(DEADLINE_S)))
    rename_over(file, "first")
    watched.expect("first")
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    names = (file.parent / "a", file.parent / "b")
    names[0].write_text("x")
    for turn in range(most):
        os.rename(names[turn % 2], names[1 - turn % 2])  # different from the last, so the kernel cannot merge them
    rename_over(file, "lost in the queue")
    go_on.set()
    watched.expect("lost in the queue")


def test_a_machine_without_watches_ends_watching_before_it_begins(file, monkeypatch):
    refusal = OSError(24, "Too many open files")

    def refuse():
        raise refusal

    monkeypatch.setattr(watch, "INotify", refuse)
    watched = Watched(file)
    watched.watch.start()
    assert watched.ended == [refusal]
    watched.watch.close()


def test_the_way_to_a_file_names_every_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/../real")
    (tmp_path / "real" / "file").symlink_to(tmp_path / "real" / "other")
    root = str(tmp_path)
    steps = names_on_the_way(tmp_path / "link" / "file")
    start = steps.index((root, "link"))
    assert steps[start : start + 4] == [(root, "link"), (root, "real"), (root, "real"), (f"{root}/real", "file")]
    assert steps[-2:] == [(root, "real"), (f"{root}/real", "other")]


def test_links_that_go_round_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert len(names_on_the_way(tmp_path / "a")) < 100
