"""What can go wrong in a laboratory, each in one sentence with the way out."""

from __future__ import annotations


class LabError(Exception):
    """Base of all errors that a user of the laboratory can cause and can mend."""


class WrongUse(LabError):
    """A name, number or option that is not allowed; the text says what is."""


class CannotStart(LabError):
    """The laboratory could not be built on this machine."""


class Lacking(WrongUse, CannotStart):
    """What was asked for needs something that this machine does not have, or that does not run here: ask for less."""


class NotInTime(LabError):
    """A condition did not come true before its deadline; the text says what was still missing."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: unlike Ctrl-C, which may be meant for one command, it ends everything."""


def errors_in(log: str) -> list[str]:
    """Returns with what each traceback in a log ends: the error, which is the first line that is not indented."""
    traces = log.split("Traceback (most recent call last):\n")[1:]
    return [next((line for line in trace.splitlines() if line and not line.startswith(" ")), "") for trace in traces]
