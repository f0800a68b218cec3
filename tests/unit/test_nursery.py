"""The nursery and the lab's handle on it, for real: a process of its own, whose forks live in other namespaces.

What a fork is asked to do is `nursery` once more, the one daemon that runs on any machine; or a command that ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import nursery as handle
from lab.errors import LabError, NotInTime
from lab.faults.freezing import frozen_daemon
from lab.nursery import Daemon, Nursery
from lab.site import Site
from lab.waiting import wait_until
from maglev.engine.control import ControlError, request
from maglev.errors import MaglevError
from maglev.nursery import LARGEST_ORDER_BYTES, Order, OrderError, parse

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 20.0
CLUSTER = """
maglevs: [{name: m1, address: 10.1.1.2}]
pools: {web: {endpoints: [{address: 10.2.1.2}], health_check: {type: tcp, port: 80}}}
vips: [{name: www, address: 192.0.2.1, protocol: tcp, port: 80, pool: web}]
forwarder: {table_size: 251, engine: socket}
"""


@pytest.fixture(scope="module")
def node(lacking):
    """A process with a network and a mount namespace of its own, as a lab's nodes are; the network has an address."""
    if lacking:
        pytest.skip(lacking)
    setting_up = "ip link set lo up && ip address add 10.1.1.2/24 dev lo && echo ready && exec sleep infinity"
    command = ["unshare", "--net", "--mount", "sh", "-c", setting_up]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


@pytest.fixture(scope="module")
def nursery(node, tmp_path_factory):
    """A nursery for the whole module, and the directory of its socket and log."""
    started = Nursery(Site(tmp_path_factory.mktemp("site")), sys.executable, ROOT)
    yield started
    started._process.kill()
    started._process.wait(TIMEOUT_S)


@pytest.fixture
def start(nursery, node, tmp_path):
    """Starts a fork whose log is `NAME.log` in the test's directory, and ends it at the test's end."""
    started = []

    def start_one(*arguments, name="fork", environment=None):
        daemon = nursery.start(list(map(str, arguments)), environment or {}, node, tmp_path / f"{name}.log")
        started.append(daemon)
        return daemon

    yield start_one
    for daemon in started:
        end(daemon)


def end(daemon):
    if daemon.poll() is None:
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait(TIMEOUT_S)


def wait_for(path):
    wait_until(lambda: "" if path.exists() else "it is not there", TIMEOUT_S, str(path))


def silence(control):
    """Why nobody answers on a control socket, which is there a moment before it is listened on; "" if somebody does."""
    try:
        request(control, "GET", "/status")
    except ControlError as error:
        return str(error)
    return ""


def endless(start, path, **options):
    """A fork that runs until it is ended: a nursery with a socket at `path`, once that is there."""
    daemon = start("nursery", "--socket", path, **options)
    wait_for(path)
    return daemon


def descriptors(pid):
    return {int(path.name): os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


def ignored(pid):
    """The signals that a process ignores."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn:")]
    return {number for number in signal.Signals if int(line.split()[1], 16) >> (number - 1) & 1}


# What a fork becomes


def test_a_fork_lives_in_the_namespaces_of_the_node_and_in_a_session_of_its_own(start, node, nursery, tmp_path):
    daemon = endless(start, tmp_path / "inner.sock")
    for kind in ("net", "mnt"):
        own, wanted, others = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (daemon.pid, node, os.getpid()))
        assert own == wanted != others, f"{kind}: the node has {wanted}, the fork {own}, we have {others}"
    assert os.getsid(daemon.pid) == daemon.pid
    assert os.getsid(daemon.pid) != os.getsid(nursery._process.pid)


def test_a_fork_holds_no_files_but_its_own(start, tmp_path):
    daemon = endless(start, tmp_path / "inner.sock")
    held, log = descriptors(daemon.pid), str(tmp_path / "fork.log")
    assert [held.pop(number) for number in range(3)] == ["/dev/null", log, log]
    assert [target.partition(":")[0] for target in held.values()] == ["socket"], f"only its own socket, but {held}"


def test_output_goes_to_the_log_behind_what_stands_there(start, tmp_path):
    (tmp_path / "fork.log").write_text("before\n")
    (tmp_path / "bad.yaml").write_text("vips: []")
    start("check-config", tmp_path / "bad.yaml").wait(TIMEOUT_S)
    expected = subprocess.run(
        [sys.executable, "-m", "maglev", "check-config", tmp_path / "bad.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip
    assert "maglevs: " in expected
    assert (tmp_path / "fork.log").read_text() == "before\n" + expected


def test_the_environment_is_the_one_that_was_ordered_and_nothing_of_the_nurserys(start, tmp_path):
    """How wide a help text is, COLUMNS says; 80 where nothing does."""
    widths = {}
    for name, environment in (("narrow", {"COLUMNS": "40"}), ("wide", {"COLUMNS": "200"}), ("none", {"HOME": "/"})):
        start("replay", "--help", name=name, environment=environment).wait(TIMEOUT_S)
        widths[name] = max(map(len, (tmp_path / f"{name}.log").read_text().splitlines()))
    assert widths["narrow"] <= 40 < widths["none"] <= 80 < widths["wide"], widths


def test_two_at_once_are_two_processes_with_a_log_each(start, tmp_path):
    with ThreadPoolExecutor(8) as many:
        options = [{"name": f"fork{i}", "environment": {"COLUMNS": str(40 + 10 * i)}} for i in range(8)]
        daemons = list(many.map(lambda option: start("replay", "--help", **option), options))
    assert len({daemon.pid for daemon in daemons}) == 8
    for daemon in daemons:
        daemon.wait(TIMEOUT_S)
    widths = [max(map(len, (tmp_path / f"fork{i}.log").read_text().splitlines())) for i in range(8)]
    assert widths == sorted(widths), f"each should have its own environment and log: {widths}"
    assert len(set(widths)) > 4


# How a fork ends


def becoming(arguments, log, network="/proc/self/ns/net"):
    """The exit status of a process that carries out an order, in the mount namespace where it is already."""
    program = """
import os, sys
from maglev.nursery import Order, _become
network, mounts, log, *arguments = sys.argv[1:]
files = [os.open(path, os.O_RDONLY) for path in (network, mounts)]
_become(Order(arguments, dict(os.environ), [*files, os.open(log, os.O_WRONLY | os.O_CREAT)]), ())
"""
    command = [sys.executable, "-c", program, network, "/proc/self/ns/mnt", log, *arguments]
    return subprocess.run(list(map(str, command)), cwd=ROOT, check=False).returncode


def test_exit_statuses_are_those_of_the_command(lacking, tmp_path):
    if lacking:
        pytest.skip(lacking)
    (tmp_path / "sound.yaml").write_text(CLUSTER)
    log = tmp_path / "log"
    found = [
        becoming(["check-config", tmp_path / "sound.yaml"], log),
        becoming(["check-config", tmp_path / "none.yaml"], log),
        becoming(["check-config"], log),
        becoming(["check-config", "--help"], log),
    ]
    assert found == [0, 1, 2, 0], f"sound, unreadable, wrong use and help should be 0, 1, 2, 0, but are {found}"


def test_a_namespace_that_is_none_is_told_in_a_sentence(lacking, tmp_path):
    if lacking:
        pytest.skip(lacking)
    log = tmp_path / "log"
    assert becoming(["check-config", "--help"], log, network=tmp_path) == 1
    assert log.read_text() == "maglev: cannot enter a namespace: Invalid argument\n"


def test_a_fork_that_is_killed_leaves_no_zombie_and_the_others_alone(start, tmp_path):
    doomed = endless(start, tmp_path / "doomed.sock", name="doomed")
    other = endless(start, tmp_path / "other.sock", name="other")
    assert (doomed.poll(), other.poll()) == (None, None)
    os.kill(doomed.pid, signal.SIGKILL)
    assert doomed.wait(TIMEOUT_S) == doomed.poll() == 0
    wait_until(lambda: "zombie" if Path(f"/proc/{doomed.pid}").exists() else "", TIMEOUT_S, "its reaping")
    assert other.poll() is None
    start("check-config", "--help", name="later").wait(TIMEOUT_S)
    assert "usage" in (tmp_path / "later.log").read_text()


def test_a_forwarder_heeds_the_signals_that_it_heeds_elsewhere(start, tmp_path):
    file, control = tmp_path / "site.yaml", tmp_path / "control.sock"
    file.write_text(CLUSTER)
    daemon = start("forwarder", "--config", file, "--control", control, "--maglev", "m1")
    wait_until(lambda: silence(control), TIMEOUT_S, "an answer")
    assert signal.SIGCHLD not in ignored(daemon.pid), "it may want to know how its own children ended"
    before = request(control, "GET", "/status")["generation"]
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(
        lambda: "" if request(control, "GET", "/status")["generation"] > before else str(before), TIMEOUT_S, "a reload"
    )
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.wait(TIMEOUT_S)
    assert not control.exists(), "it should have tidied up"


def test_a_fork_may_run_another_module_that_the_nursery_has_imported(start, tmp_path):
    started = start("lab.servers", "--help")
    started.wait(TIMEOUT_S)
    assert "the servers of a service endpoint" in (tmp_path / "fork.log").read_text()
    start("lab.holder", "--help", name="other").wait(TIMEOUT_S)
    assert "invalid choice: 'lab.holder'" in (tmp_path / "other.log").read_text(), "it was not told of that module"


def test_a_nursery_with_a_module_that_is_not_there_says_so(tmp_path):
    command = [sys.executable, "-m", "maglev", "nursery", "--socket", str(tmp_path / "socket"), "--also", "no.such"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stderr) == (1, "maglev: --also no.such: No module named 'no'\n")


# Orders that make no sense

ORDER = {"arguments": ["check-config", "--help"], "environment": {}}
BAD = [
    (b"", "an order was b''; allowed: a JSON document"),
    (b"\xff\xfe{", "allowed: a JSON document"),
    (b"[1, 2]", r"an order was \[1, 2\]; allowed: arguments and environment"),
    (json.dumps({"arguments": []}).encode(), "allowed: arguments and environment"),
    (json.dumps(ORDER | {"user": "root"}).encode(), "allowed: arguments and environment"),
    (json.dumps(ORDER | {"arguments": "forwarder"}).encode(), "arguments were forwarder; allowed: a list of words"),
    (json.dumps(ORDER | {"arguments": ["a", 1]}).encode(), r"arguments were \['a', 1\]; allowed: a list of words"),
    (json.dumps(ORDER | {"arguments": ["a\0b"]}).encode(), "allowed: a list of words"),
    (json.dumps(ORDER | {"environment": ["A=1"]}).encode(), "environment was .*; allowed: names and words"),
    (json.dumps(ORDER | {"environment": {"A": None}}).encode(), "allowed: names and words"),
    (json.dumps(ORDER | {"environment": {"A": "\0"}}).encode(), "allowed: names and words"),
]


@pytest.mark.parametrize(("message", "says"), BAD, ids=range(len(BAD)))
def test_an_order_that_makes_no_sense_is_refused_with_what_is_allowed(message, says):
    with pytest.raises(OrderError, match=says):
        parse(message, [3, 4, 5])


@pytest.mark.parametrize("count", [0, 2, 4])
def test_an_order_without_its_three_files_is_refused(count):
    with pytest.raises(OrderError, match=f"came with {count} files; allowed: network namespace, mount namespace, log"):
        parse(json.dumps(ORDER).encode(), list(range(count)))


def test_a_sound_order_is_read():
    assert parse(json.dumps(ORDER).encode(), [3, 4, 5]) == Order(["check-config", "--help"], {}, [3, 4, 5])
    assert issubclass(OrderError, MaglevError)


def test_the_nursery_outlives_orders_that_make_no_sense_and_keeps_none_of_their_files(nursery, start, tmp_path):
    start("check-config", "--help").wait(TIMEOUT_S)
    pid, before = nursery._process.pid, descriptors(nursery._process.pid)
    for message, files in ((None, []), (b"{", [0]), (json.dumps(ORDER).encode(), [0, 1]), (b"x" * 10, [0] * 9)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(nursery._path))
            if message is None:
                continue  # goes away without a word
            socket.send_fds(client, [message], files)
            client.settimeout(TIMEOUT_S)
            assert client.recv(64) == b"", "there should have been no answer"
    start("check-config", "--help", name="later").wait(TIMEOUT_S)
    assert "usage" in (tmp_path / "later.log").read_text()
    assert descriptors(pid) == before
    said = nursery._log.read_text()
    for words in ("was b''; allowed", "was b'{'; allowed", "came with 2 files; allowed", "was cut short: allowed are"):
        assert f"nothing was started: an order {words}" in said, said
    assert "Traceback" not in said, said


def test_a_client_that_says_nothing_does_not_keep_others_waiting_for_ever(nursery, start, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(str(nursery._path))
        start("check-config", "--help").wait(TIMEOUT_S)
    assert "usage" in (tmp_path / "fork.log").read_text()


def test_an_order_too_long_is_told_in_a_sentence(start):
    with pytest.raises(
        LabError, match=r"could not start check-config: (nothing was started: an order was|Message too long)"
    ):
        start("check-config", "--help", environment={"A": "x" * LARGEST_ORDER_BYTES})


# What the lab says of it


def test_the_socket_is_its_owners_alone(nursery, start):
    start("check-config", "--help")
    assert stat.S_IMODE(nursery._path.stat().st_mode) == 0o600


def test_a_node_that_has_ended_is_told_in_a_sentence(nursery, tmp_path):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    where = f"/proc/{gone.pid}/ns/net"
    with pytest.raises(LabError, match=rf"could not start forwarder: No such file or directory \({where}\)"):
        nursery.start(["forwarder"], {}, gone.pid, tmp_path / "log")


def test_a_log_that_cannot_be_written_is_told_in_a_sentence(nursery, node, tmp_path):
    with pytest.raises(LabError, match=r"could not start forwarder: No such file or directory \(.*/nowhere/log\)"):
        nursery.start(["forwarder"], {}, node, tmp_path / "nowhere" / "log")


def test_a_nursery_that_does_not_answer_is_told_in_a_sentence(nursery, start, monkeypatch, tmp_path):
    start("check-config", "--help").wait(TIMEOUT_S)
    monkeypatch.setattr(handle, "ANSWER_TIMEOUT_S", 0.2)
    os.kill(nursery._process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LabError, match="the nursery could not start check-config: timed out"):
            start("check-config", "--help", name="late")
    finally:
        os.kill(nursery._process.pid, signal.SIGCONT)
    start("check-config", "--help", name="later").wait(TIMEOUT_S)


def test_when_the_nursery_dies_its_forks_go_on_and_no_more_come(node, tmp_path):
    mortal, log = Nursery(Site(tmp_path), sys.executable, ROOT), tmp_path / "fork.log"
    daemon = mortal.start(["nursery", "--socket", str(tmp_path / "inner.sock")], {}, node, log)
    try:
        wait_for(tmp_path / "inner.sock")
        mortal._process.kill()
        mortal._process.wait(TIMEOUT_S)
        with pytest.raises(LabError, match="the nursery has ended: it said nothing"):
            mortal.start(["check-config", "--help"], {}, node, log)
        assert daemon.poll() is None, "the fork should have outlived its parent"
    finally:
        end(daemon)
        mortal._process.kill()


def test_a_nursery_that_does_not_come_up_says_its_last_words(node, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho no memory left >&2\nexit 1\n")
    python.chmod(0o755)
    broken = Nursery(Site(tmp_path), str(python), ROOT)
    with pytest.raises(LabError, match=r"^the nursery has ended: no memory left$"):
        broken.start(["check-config", "--help"], {}, node, tmp_path / "log")


def test_a_nursery_that_takes_too_long_is_not_waited_for_for_ever(node, tmp_path, monkeypatch):
    monkeypatch.setattr(handle, "READY_TIMEOUT_S", 0.1)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    slow = Nursery(Site(tmp_path), str(python), ROOT)
    try:
        with pytest.raises(NotInTime, match=r"the nursery did not happen within 0\.1 s: it is not ready"):
            slow.start(["check-config", "--help"], {}, node, tmp_path / "log")
    finally:
        slow._process.kill()
        slow._process.wait(TIMEOUT_S)


# Processes that are not our children


def test_a_daemon_is_waited_for_with_a_deadline():
    with subprocess.Popen(["sleep", "60"]) as process:
        daemon = Daemon(process.pid)
        assert daemon.poll() is None
        began = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(0.05)
        assert time.monotonic() - began >= 0.05
        process.kill()
        assert daemon.wait() == daemon.poll() == 0


def test_a_daemon_that_has_ended_already_has_ended():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    daemon = Daemon(process.pid)
    assert (daemon.poll(), daemon.wait(0.0)) == (0, 0)


def test_a_fault_may_end_after_the_handle_on_its_daemon():
    """A lab that stops while a daemon is frozen lets go of both in no particular order."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        daemon = Daemon(process.pid)
        try:
            with frozen_daemon(daemon):
                daemon.__del__()
        finally:
            process.kill()
