"""Watches a file, in whatever way it is replaced: written in place, renamed over, deleted and made again, or swapped
behind a symbolic link.

inotify(7) watches inodes, but a file's path is a chain of names: each may be exchanged, and each link starts another
chain. Kubernetes makes `maglev.yaml` a link to `..data/maglev.yaml`, and exchanges `..data`; an editor renames a new
file over the old. So every directory is watched in which one of these names stands, and after an event the way is
gone again. What is left out: a file system mounted over the way makes no event.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from inotify_simple import INotify, flags

QUIET_S = 0.05  # a change is reported when nothing has happened for so long: it often comes in several steps
MOST_LINKS = 40  # on one way, path_resolution(7)
NAME_EVENTS = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR | flags.MASK_ADD
CONTENT_EVENTS = flags.MODIFY | flags.CLOSE_WRITE  # wanted of the last name only, which is the file's

Fingerprint = tuple[int, ...] | None  # None: there is no such file


class FileWatch:
    """Calls `on_change` when a file has changed, has gone or is there again; from a thread of its own.

    Counts from when it was made: whoever reads the file after that, and then calls `start`, misses nothing. `on_end`
    is called, with the reason, if watching is impossible, as when the machine has no watches left, or becomes so.
    """

    def __init__(self, file: Path, on_change: Callable[[], None], on_end: Callable[[OSError], None]) -> None:
        self._file = file.absolute()
        self._on_change, self._on_end = on_change, on_end
        self._seen = fingerprint(self._file)
        self._names: dict[int, set[str]] = {}  # watch descriptor: the names in that directory that lead to the file
        self._is_being_written = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)

    def start(self) -> None:
        """Starts to watch."""
        try:
            self._open()
        except OSError as error:
            self._on_end(error)
        else:
            self._thread.start()

    def _open(self) -> None:
        self._inotify = INotify()
        try:
            self._follow()
        except OSError:
            self._inotify.close()
            raise

    def close(self) -> None:
        """Ends watching."""
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._inotify.close()
        os.close(self._wake)

    def _run(self) -> None:
        try:
            self._compare()
            while self._wait_for_events(None):
                if self._concerns_us(self._inotify.read(0)) and not self._settle():
                    return
        except OSError as error:
            self._on_end(error)

    def _wait_for_events(self, timeout_s: float | None) -> bool:
        """Waits; says whether there are events: there are none after the timeout, or when it is time to end."""
        ready = select.select([self._inotify, self._wake], [], [], timeout_s)[0]
        return bool(ready) and self._wake not in ready

    def _settle(self) -> bool:
        """Waits until all is quiet and nobody writes the file, then compares; False when it is time to end."""
        while self._wait_for_events(QUIET_S):
            self._concerns_us(self._inotify.read(0))
        if select.select([self._wake], [], [], 0)[0]:
            return False
        if not self._is_being_written:
            self._follow()
            self._compare()
        return True

    def _concerns_us(self, events: Iterable[Any]) -> bool:
        """Takes in events; says whether any may mean another file."""
        concerned = False
        for event in events:
            lost = event.mask & flags.Q_OVERFLOW or (event.mask & flags.IGNORED and event.wd in self._names)
            if lost or event.name in self._names.get(event.wd, ()):
                self._is_being_written = bool(event.mask & flags.MODIFY)  # until it is closed, or is another file
                concerned = True
        return concerned

    def _follow(self) -> None:
        """Watches the directories on the way to the file as it is now, and no others."""
        way = None
        while way != (way := names_on_the_way(self._file)):
            names: defaultdict[int, set[str]] = defaultdict(set)
            for directory, name in way:
                events = NAME_EVENTS | (CONTENT_EVENTS if (directory, name) == way[-1] else 0)
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    names[self._inotify.add_watch(directory, events)].add(name)
            for left in self._names.keys() - names.keys():
                with contextlib.suppress(OSError):  # the kernel has removed it with the directory
                    self._inotify.rm_watch(left)
            self._names = dict(names)

    def _compare(self) -> None:
        now = fingerprint(self._file)
        if now != self._seen:
            self._seen = now
            self._on_change()


def names_on_the_way(file: Path) -> list[tuple[str, str]]:
    """Returns (directory, name) of every step from the root to a file, those of symbolic links included.

    The last is the file itself. Behind a name that does not exist the way goes on as it will be, without links.
    """
    way: list[tuple[str, str]] = []
    here, left, links = "/", deque(file.parts), 0
    while left and links <= MOST_LINKS:
        name = left.popleft()
        if name.startswith("/"):
            here = "/"
        elif name == "..":
            here = os.path.dirname(here)
        else:
            way.append((here, name))
            target = _link_target(os.path.join(here, name))
            if target is None:
                here = os.path.join(here, name)
            else:
                left.extendleft(reversed(target))
                links += 1
    return way


def _link_target(path: str) -> tuple[str, ...] | None:
    try:
        return Path(os.readlink(path)).parts
    except OSError:
        return None


def fingerprint(file: Path) -> Fingerprint:
    """Returns numbers that change whenever a file is written or is another one; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
