"""The servers of a cluster by name, what is said of each from its answer, and the agent's part that needs no root."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import threading

import pytest

from lab.cluster import agent, checks, facts, servers
from lab.errors import WrongUse
from lab.whereabouts import machines

ME = pwd.getpwuid(os.getuid()).pw_name
THERE = servers.Server("far", "192.0.2.7", ME)
OWN = {"project": "abc", "versions": {"python": "3.11.2", "bird": "2.0.12"}}
GOOD = {"mininet": True, "bird": True, "project": "abc", "tap": False, "versions": dict(OWN["versions"])}
UP_TO_SUDO = "\n".join([checks.REACHED, checks.MAY_TUN, checks.MAY_SUDO])


def answered(**changes):
    return f"{UP_TO_SUDO}\n{json.dumps({**GOOD, **changes})}\n"


def test_servers_are_named_by_commas_or_one_by_one():
    by_commas = servers.parse(f"localhost, {ME}@192.0.2.7")
    assert by_commas == servers.parse(["localhost", f"{ME}@192.0.2.7"])
    assert [(server.name, server.address, server.user) for server in by_commas] == [
        ("localhost", "127.0.0.1", ME), ("192.0.2.7", "192.0.2.7", ME),
    ]  # fmt: skip


def test_a_machine_s_own_address_is_this_machine():
    assert [server.is_here for server in servers.parse("127.0.0.1")] == [True]


def test_ssh_runs_as_the_user_by_the_configuration_that_is_named(tmp_path):
    config = tmp_path / "config"
    config.touch()
    command = servers.parse(f"{ME}@192.0.2.7", config)[0].ssh("-n")
    assert command[:5] == ["sudo", "-E", "-u", ME, "ssh"]
    assert command[-3:] == [str(config), "-n", f"{ME}@192.0.2.7"]
    assert "BatchMode=yes" in command


WRONG = [  # what is named, what is said of it
    ("a b", "'a b' is no server's name; allowed: localhost, HOST or USER@HOST"),
    ("localhost,", "'' is no server's name"),
    ("-oProxyCommand=x", "is no server's name"),
    ("root@a@b", "is no server's name"),
    ("host.invalid", "there is no IPv4 address of 'host.invalid'"),
    ("192.0.2.7,192.0.2.7", "names 192.0.2.7 twice"),
    ("localhost,127.0.0.1", "names localhost twice"),
    ("no.such.user@192.0.2.7", "there is no user 'no.such.user' on this machine"),
    ("a@192.0.2.7,b@192.0.2.8", "users a, b are not allowed; allowed: one"),
    (",".join(f"192.0.2.{number}" for number in range(1, 18)), "a cluster of 17 servers is not allowed; allowed: 1"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "said"), WRONG, ids=[names[:20] for names, _ in WRONG])
def test_what_is_no_server_is_refused_in_one_sentence(names, said):
    with pytest.raises(WrongUse, match=said.replace(".", r"\.")) as refused:
        servers.parse(names)
    assert "\n" not in str(refused.value)


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(WrongUse, match="cannot be read: No such file"):
        servers.parse("192.0.2.7", tmp_path / "nothing")


def test_without_a_cluster_a_lab_is_on_this_machine():
    assert machines("", None).cluster == machines((), None).cluster == ()
    assert machines("localhost", None).cluster == ("localhost",)


ANSWERS = [  # standard output, standard error, what is missing, what is said
    ("", f"{ME}@192.0.2.7: Permission denied (publickey).", "ssh", f"run ssh-copy-id {ME}@192.0.2.7 as {ME}"),
    ("", "Host key verification failed.", "ssh", f"run ssh {ME}@192.0.2.7 as {ME}"),
    ("", "ssh: connect to host 192.0.2.7 port 22: Connection refused", "ssh", "does an ssh server run there?"),
    ("", "", "ssh", "it says nothing"),
    (f"{checks.REACHED}\n{checks.MAY_TUN}\n", "sudo: a password is required", "sudo", "without a password"),
    (f"{checks.REACHED}\n{checks.MAY_SUDO}\n{json.dumps(GOOD)}", "", "TAP", "open /dev/net/tun"),
    (UP_TO_SUDO, "env: '/x/.venv/bin/python': No such file or directory", "the project", "copy it there"),
    (answered(mininet=False), "", "Mininet", "make setup"),
    (answered(bird=False), "", "BIRD", "make setup"),
    (answered(project="abd"), "", "the project", "its sources differ"),
    (answered(tap=True), "", "room for a tunnel", "ip link delete tap9"),
]


@pytest.mark.parametrize(("out", "complaints", "missing", "said"), ANSWERS)
def test_what_is_missing_is_said_with_what_to_do(out, complaints, missing, said):
    lacking = [each for each in checks.judge(THERE, out, complaints, OWN) if each.needed and not each.found]
    assert [each.what for each in lacking] == [f"far: {missing}"]
    assert said in lacking[0].follows


def test_another_version_is_told_and_no_obstacle():
    out = answered(versions={"python": "3.12.1", "bird": "2.0.12"})
    findings = {each.what: each for each in checks.judge(THERE, out, "", OWN)}
    assert findings["far: python"].follows == "3.12.1 there, 3.11.2 here: better the same"
    assert findings["far: bird"].found
    assert not any(each.needed and not each.found for each in findings.values())


def test_facts_know_this_machine_and_any_change_of_a_source(tmp_path, monkeypatch):
    assert facts.gather()["mininet"]
    assert facts.digest() == facts.digest()
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    (tmp_path / "lab").mkdir()
    seen = set()
    for text in ("a", "b", "ab"):
        (tmp_path / "lab" / "site.py").write_text(text)
        seen.add(facts.digest())
    assert len(seen) == 3


@pytest.fixture
def echo(tmp_path):
    """A socket that gives back in capitals all that it gets, once that has ended."""
    path = tmp_path / "echo"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, client.makefile("rwb") as stream:
                        stream.write(stream.read().upper())

        threading.Thread(target=serve, daemon=True).start()
        yield path
        server.shutdown(socket.SHUT_RDWR)


def ask(path, question):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(question)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            return answer.read()


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_a_relay_passes_on_everything_both_ways_and_its_end(tmp_path, echo, size):
    with agent.Relay(tmp_path / "relay", echo) as relay:
        assert ask(tmp_path / "relay", b"x" * size) == b"X" * size
        relay.shutdown()


def test_a_relay_to_nobody_hangs_up(tmp_path):
    with agent.Relay(tmp_path / "relay", tmp_path / "nobody") as relay, contextlib.suppress(ConnectionError):
        assert ask(tmp_path / "relay", b"") == b""
        relay.shutdown()
