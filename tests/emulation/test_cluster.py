"""A pod over two servers, one of them away: the verdicts of one machine hold, and servers are left as they were.

Who is away is a namespace with an ssh server, a process table and a `/run` of its own (`ssh_servers`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ssh_servers
from settling import settle

from lab import Lab, evidence, observe, verify
from lab.cluster import servers, trial
from lab.errors import CannotStart, LabError, WrongUse
from lab.nodes import ROOT

pytestmark = pytest.mark.skipif(
    bool(ssh_servers.missing()), reason=f"not installed here: {ssh_servers.missing()} (make setup)"
)

CONNECTIONS = 200
GOOD, SECOND, THIRD, NO_TUNNELS, NO_KEY, NO_MININET, NO_SHELLS, MORTAL, NOBODY_THERE = range(2, 11)
SMALL = {"edges": 1, "spines": 1, "maglev_racks": 1, "endpoint_racks": 1, "maglevs": 1, "endpoints": 1, "clients": 1}
ONE_OF_EACH = {"maglevs": 1, "endpoints": 1, "clients": 1}
PING_HEADERS_BYTES = 28
AWAY = ["leaf2", "leaf4", "m3", "m4", "s3", "s4"]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Servers, good and bad, in a network that this thread is in."""
    with ssh_servers.servers(tmp_path_factory.mktemp("servers")) as all_of_them:
        all_of_them.add(GOOD)
        all_of_them.add(SECOND)
        all_of_them.add(THIRD)
        all_of_them.add(NO_TUNNELS, tunnels="no")
        all_of_them.add(NO_KEY, authorized="nobody")
        all_of_them.add(NO_MININET, before="mount -t tmpfs none /usr/lib/python3/dist-packages/mininet")
        all_of_them.add(NO_SHELLS, before="mount --bind /bin/false /usr/bin/mnexec")
        all_of_them.add(MORTAL)
        all_of_them.wait_up()
        yield all_of_them


@pytest.fixture(scope="module")
def pod(there):
    """A pod on this machine and a server; afterwards nothing of it is left on either."""
    cluster = ["localhost", name_of(GOOD)]
    with Lab("pod", cluster=cluster, ssh_config=there.ssh_config) as lab:
        yield lab
        directory = lab.directory
    assert not directory.exists()
    assert_clean(there, GOOD)


def name_of(number):
    return f"root@{ssh_servers.NETWORK}.{number}"


def assert_clean(there, number, timeout_s=15.0):
    """Waits until a server runs nothing but its ssh server, and has no file and no interface of a lab."""
    deadline = time.monotonic() + timeout_s
    while (left := left_on(there, number)) != (set(), {"lo", "eth0"}, []):
        assert time.monotonic() < deadline, f"server {number} still has {left}: {there.on(number, 'ps axf')}"
        time.sleep(0.1)


def left_on(there, number):
    """Returns the programs, the interfaces and the labs' directories of a server, but for what looks at them."""
    programs = set(there.on(number, "ps -eo comm=").split()) - {"sshd", "sh", "ps"}
    interfaces = {line.split()[1].rstrip(":").partition("@")[0] for line in there.on(number, "ip -o link").splitlines()}
    return programs, interfaces, there.on(number, "ls /run/maglab").split()


def test_racks_are_on_two_servers_and_their_daemons_where_they_are(pod, there):
    assert [node.name for node in pod.net.hosts if not node.is_here] == AWAY
    running = there.on(GOOD, "ps -ww -eo args")
    for daemon in ("m3/exabgp.conf", "m4/exabgp.conf", "leaf2/bird.conf", "leaf4/bird.conf"):
        assert daemon in running, f"{daemon} should run there, but there run: {running}"
    for away in AWAY:
        there_is = pod.run(away, "ls /run/maglab").stdout.split()
        assert there_is == [f"{pod.id}-2"], f"{away} sees {there_is}, not what its server has"


def test_what_is_seen_of_a_lab_on_one_machine_is_seen(pod):
    snapshot = pod.snapshot()
    assert [name for name, view in snapshot.maglevs.items() if view and view.status["ready"]] == [
        "m1",
        "m2",
        "m3",
        "m4",
    ]
    assert {state for view in snapshot.routers.values() for state in view.sessions.values()} == {"Established"}
    hops = observe.ecmp(pod.node("leaf2"))["192.0.2.1"]
    assert {snapshot.names[hop] for hop in hops} == {"m3", "m4"}


@pytest.mark.parametrize("vip", ["192.0.2.1", "[2001:db8::1]"])
def test_a_client_is_served_by_both_families(pod, vip):
    served = pod.run("c1", f"curl -sS --max-time 5 http://{vip}/")
    assert served.returncode == 0, served.stderr
    assert served.stdout


@pytest.mark.parametrize("router", ["spine1", "spine2"])
def test_a_tunnel_carries_what_any_link_does_and_no_more(pod, router):
    """Full-size packets in GRE: 1,600 bytes, though the network between the servers carries 1,500."""
    address = next(end for own, end in pod.node(router).peers() if end.node.name == "leaf2")
    target, largest = pod.node(router).address_of(address), 1600 - PING_HEADERS_BYTES
    ping = f"ping -c 1 -W 3 -M do {target} -s"
    assert pod.run(router, f"{ping} {largest}").returncode == 0
    assert "message too long" in pod.run(router, f"{ping} {largest + 1}").stderr


def test_a_dead_maglev_and_a_drained_endpoint_there_break_no_connection_and_answers_are_direct(pod):
    before = pod.snapshot()
    with pod.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        with pod.kill("m3"):
            settle(pod, conns)
            assert pod.snapshot().maglevs["m3"] is None
        settle(pod, conns)
        with pod.drain("s4"):
            settle(pod, conns)
            drained = [view.status["pools"]["web"]["drained"] for view in pod.snapshot().maglevs.values() if view]
            assert drained == [[pod.node("s4").address]] * 4
        settle(pod, conns)
        with pod.drain("m4"):
            settle(pod, conns)
        settle(pod, conns)
        persist = verify.connections_persist(conns.all())
    assert persist, persist
    direct = verify.direct_server_return(pod.snapshot(), before)
    assert direct, direct


def test_a_router_there_loses_its_power_and_gets_it_back(pod):
    with pod.power_off("leaf2"):
        pod.wait_converged()
        hops = pod.node("spine1").routing.ecmp()["192.0.2.1"]
        assert [pod.snapshot().names[hop] for hop in hops] == ["leaf1"]
    pod.wait_converged()


REFUSED = {
    "freeze": lambda lab, directory: lab.freeze("m3"),
    "cut": lambda lab, directory: lab.link_down("leaf2-spine1"),
    "impair": lambda lab, directory: lab.impair("leaf2-m3", delay_ms=1),
    "chaos": lambda lab, directory: lab.chaos(),
    "capture": lambda lab, directory: lab.capture(directory / "all"),
    "capture there": lambda lab, directory: lab.capture(directory / "one", "leaf2-m3"),
    "trace": lambda lab, directory: lab.trace("c1"),
    "leave": lambda lab, directory: lab.leave_running(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_one_machine_is_refused_and_nothing_is_done(pod, tmp_path, what):
    with pytest.raises(WrongUse, match=r"this machine|one machine|several servers"):
        REFUSED[what](pod, tmp_path)
    assert not pod.faults
    assert not list(tmp_path.iterdir())


def test_links_of_this_machine_are_captured_and_cut(pod, tmp_path):
    with pod.capture(tmp_path / "here", "edge1-spine1"), pod.link_down("edge1-spine1"):
        pod.wait_converged()
    pod.wait_converged()
    assert list((tmp_path / "here").glob("edge1.pcap*"))


def test_evidence_has_what_daemons_said_there(pod, tmp_path):
    evidence.keep(pod, tmp_path)
    kept = {path.name for path in (tmp_path / "nodes" / "m3").iterdir()}
    assert kept >= {"forwarder.log", "exabgp.log", "exabgp.conf", "routes.txt", "processes.txt"}
    routes = (tmp_path / "nodes" / "m3" / "routes.txt").read_text()
    assert "dev m3-eth0" in routes
    assert "dev c1-" not in routes


def test_two_servers_away_are_cleaned_when_the_owner_is_killed(there):
    """Here are the clients alone; so there is a tunnel from here, and one between the two."""
    program = f"""
import sys, time
from lab import Lab
cluster = {[name_of(SECOND), name_of(THIRD)]!r}
lab = Lab("pod", cluster=cluster, ssh_config={str(there.ssh_config)!r}, **{SMALL!r}).start()
served = lab.run("c1", "curl -sS --max-time 5 http://192.0.2.1/")
print(served.returncode, served.stderr or lab.id, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        status, _, identity = process.stdout.readline().strip().partition(" ")
        assert status == "0", identity
        for number in (SECOND, THIRD):
            assert "mininet:" in there.on(number, "ps -ww -eo args")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        cleaned = subprocess.run([Path(sys.executable).with_name("maglab"), "clean", identity], check=False)
    for number in (SECOND, THIRD):
        assert_clean(there, number)
    assert cleaned.returncode == 0
    assert not Path("/run/maglab", identity).exists()


def test_labs_that_start_at_once_on_the_same_servers_do_not_meet(there):
    """Every tunnel begins under the same name."""
    program = f"""
import sys
from lab import Lab
cluster = {[name_of(SECOND), name_of(THIRD)]!r}
with Lab("pod", cluster=cluster, ssh_config={str(there.ssh_config)!r}, **{SMALL!r}) as lab:
    print(lab.run("c1", "curl -sS --max-time 5 http://192.0.2.1/"), flush=True)
    sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    labs = [subprocess.Popen([sys.executable, "-c", program], **pipes) for _ in range(2)]
    said = [lab.stdout.readline() for lab in labs]
    errors = [lab.communicate()[1] for lab in labs]
    for line, error in zip(said, errors, strict=True):
        assert "returncode=0" in line, error
    for number in (SECOND, THIRD):
        assert_clean(there, number)


def test_a_lab_whose_server_dies_says_so_and_goes(there):
    with Lab("rack", cluster=[name_of(MORTAL)], ssh_config=there.ssh_config, **ONE_OF_EACH) as lab:
        there.kill(MORTAL)
        with pytest.raises(LabError, match=r"^10\.77\.0\.9: "):
            lab.wait_converged()
        directory = lab.directory
    assert not directory.exists()


BAD = {  # server: what is said of it
    NO_KEY: r"no key of root is let in: run ssh-copy-id root@10\.77\.0\.6",
    NO_MININET: "Mininet: install Debian's mininet there",
    NOBODY_THERE: "cannot be reached .*No route to host",
}


@pytest.mark.parametrize("number", BAD)
def test_a_server_that_is_not_fit_is_named_in_one_sentence(there, number):
    before = set(Path("/run/maglab").glob("*")) if Path("/run/maglab").exists() else set()
    lab = Lab("pod", cluster=f"localhost,{name_of(number)}", ssh_config=there.ssh_config)
    with pytest.raises(WrongUse, match=BAD[number]) as refused:
        lab.start()
    assert "\n" not in str(refused.value)
    assert not {path for path in set(Path("/run/maglab").glob("pod-*")) - before if lab_of_this_process(path)}


def lab_of_this_process(directory):
    return f'"pid": {os.getpid()},' in (directory / "ledger.jsonl").read_text()


def test_a_wrong_key_is_told_apart_by_the_command_s_exit_status(there):
    there.write_config("stranger")
    try:
        told = ["up", "pod", "--cluster", f"localhost,{name_of(GOOD)}", "--ssh-config", str(there.ssh_config)]
        maglab = Path(sys.executable).with_name("maglab")
        done = subprocess.run([maglab, *told], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    finally:
        there.write_config("user")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("maglab: no nodes can be put on 10.77.0.2, ssh: no key of root is let in")


def test_a_server_without_tunnels_leaves_no_lab_behind(there):
    with pytest.raises(CannotStart, match="PermitTunnel yes"):
        Lab("rack", cluster=[name_of(NO_TUNNELS)], ssh_config=there.ssh_config, **ONE_OF_EACH).start()
    assert_clean(there, NO_TUNNELS)
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert "tap" not in links, f"here is left: {links}"


def test_a_server_where_no_node_can_have_a_shell_leaves_no_lab_behind(there):
    """Mininet would wait for the prompt for ever."""
    with pytest.raises(CannotStart, match=r"has no shell on 10\.77\.0\.8: does mnexec work there"):
        Lab("rack", cluster=[name_of(NO_SHELLS)], ssh_config=there.ssh_config, **ONE_OF_EACH).start()
    assert_clean(there, NO_SHELLS)


def test_the_doctor_tries_a_tunnel(there):
    found = {finding.what: finding for finding in trial.examine(servers.parse(name_of(SECOND), there.ssh_config))}
    assert all(finding.found for finding in found.values()), found
    assert {what.partition(": ")[2] for what in found} >= {"ssh", "sudo", "Mininet", "BIRD", "the project", "python"}
    assert found["10.77.0.3: tunnel"].follows == "carries 1,600 bytes"
    assert_clean(there, SECOND)


def test_other_processes_do_not_look_at_such_a_lab(pod):
    from lab.trace import shells_of

    with pytest.raises(LabError, match="several servers"):
        shells_of(pod.site)
