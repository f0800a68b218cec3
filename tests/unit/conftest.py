"""Fixtures of more than one file: forwarders of both kinds, network namespaces, and the command line."""

import forwarders
import pytest
from namespaces import Wires, new_namespace, why_not


@pytest.fixture(params=[forwarders.reference, forwarders.compiled])
def new_forwarder(request):
    """Makes a forwarder for a map of VIPs: the reference in one round, in the other the fast path before it."""
    return request.param


@pytest.fixture(scope="session")
def lacking():
    """What this machine lacks for namespaces; None if nothing."""
    return why_not()


@pytest.fixture
def in_namespace(lacking):
    """Runs a test's body with its `Wires`, in a namespace of its own, and returns what it returns."""
    if lacking:
        pytest.skip(lacking)

    def run(body):
        with new_namespace() as here, new_namespace() as next_door:
            return here.submit(lambda: body(Wires(next_door))).result()

    return run


@pytest.fixture
def maglab(monkeypatch, capsys):
    """Returns a function that runs `maglab` with arguments: its exit status, what it prints, what it complains."""
    from lab import cli

    def run(*arguments):
        monkeypatch.setattr(cli.sys, "argv", ["maglab", *arguments])
        monkeypatch.setattr(cli.interrupts, "leave_on_signals", lambda: None)
        with pytest.raises(SystemExit) as leave:
            cli.main()
        printed = capsys.readouterr()
        return leave.value.code or 0, printed.out, printed.err

    return run
