"""Servers for a cluster: namespaces with an ssh server each, and nothing of this machine's that is not a server's too.

A server has a network, a process table, a `/run` and a `/tmp` of its own: a number of a process or a file of a lab that
came over by chance, and not by ssh, would show there as missing. The project lies at the same path. Keys and
configurations are in a directory of the test's. "This machine" is a network namespace as well, which the thread that
runs the test is put into: nothing appears in the real one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from lab.nodes import ROOT

CLONE_NEWNET = 0x40000000  # sched.h
BRIDGE, NETWORK = "servers", "10.77.0"
NEEDED = ("sshd", "ssh-keygen", "sudo")
START_S = 10.0
SSHD = """
    ListenAddress {address}
    HostKey /run/keys/host
    AuthorizedKeysFile /run/keys/{authorized}
    PermitTunnel {tunnels}
    PermitRootLogin prohibit-password
    StrictModes no
    UsePAM no
    UseDNS no
    PidFile none
"""
INIT = """
    mount -t tmpfs none /run && mkdir -p /run/keys /run/sshd /run/project
    mount --bind {keys} /run/keys && mount --bind {root} /run/project
    mount -t tmpfs none /tmp && mkdir -p {root} && mount --bind /run/project {root}
    mount --bind /run/keys/{name}.home /root
    ip link set lo up
    until ip address add {address}/24 dev eth0 2>/dev/null; do sleep 0.02; done
    ip link set eth0 up
    {before}
    exec {sshd} -D -e -f /run/keys/{name}.conf
"""

_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> str:
    """Returns what this machine lacks for such servers, "" if nothing."""
    return ", ".join(name for name in NEEDED if shutil.which(name) is None)


class Servers:
    """A network that this thread is in, and the servers that have been added to it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []
        self.ssh_config = directory / "ssh_config"
        for key in ("host", "user", "stranger"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(directory / key))
        shutil.copy(directory / "user.pub", directory / "authorized")
        (directory / "nobody").touch()
        host = (directory / "host.pub").read_text()
        (directory / "known").write_text(f"{NETWORK}.* {host}")
        self.write_config("user")

    def write_config(self, key: str) -> None:
        """Has ssh show a key to all servers."""
        self.ssh_config.write_text(_ssh_config(self._directory, key))

    def add(self, number: int, tunnels: str = "yes", authorized: str = "authorized", before: str = "") -> str:
        """Starts a server, and returns its address; `before` is done there before its ssh server starts."""
        name, address = f"server{number}", f"{NETWORK}.{number}"
        home = self._directory / f"{name}.home" / ".ssh"
        home.mkdir(parents=True)
        (home / "config").write_text(_ssh_config(Path("/run/keys"), "user"))
        sshd = SSHD.format(address=address, tunnels=tunnels, authorized=authorized)
        (self._directory / f"{name}.conf").write_text(textwrap.dedent(sshd))
        told = {"keys": self._directory, "root": ROOT, "name": name, "address": address, "before": before}
        script = INIT.format(**told, sshd=shutil.which("sshd"))
        new = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with open(self._directory / f"{name}.log", "wb") as log:
            process = subprocess.Popen([*new, "sh", "-ec", script], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._running.append(process)
        inside = _child_of(process.pid)
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(inside))
        _run("ip", "link", "set", name, "master", BRIDGE, "up")
        return address

    def log(self, number: int) -> str:
        """Returns what a server's ssh server has said."""
        return (self._directory / f"server{number}.log").read_text()

    def on(self, number: int, command: str) -> str:
        """Returns what a shell command prints on a server, which needs no ssh."""
        inside = _child_of(self._running[number - 2].pid)
        words = ["nsenter", "-t", str(inside), "-n", "-m", "-p", "sh", "-c", command]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=20).stdout

    def wait_up(self) -> None:
        """Waits until every server answers."""
        deadline = time.monotonic() + START_S
        for number in range(2, 2 + len(self._running)):
            while "listening on" not in self.log(number):
                assert time.monotonic() < deadline, f"server {number} does not start: {self.log(number)}"
                time.sleep(0.02)

    def kill(self, number: int) -> None:
        """Ends a server, as if its power went."""
        process = self._running[number - 2]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        """Ends every server, and with its first process all that runs there."""
        for number in range(2, 2 + len(self._running)):
            self.kill(number)


def _ssh_config(keys: Path, key: str) -> str:
    return textwrap.dedent(f"""
        Host *
            IdentityFile {keys / key}
            IdentitiesOnly yes
            UserKnownHostsFile {keys / "known"}
            GlobalKnownHostsFile /dev/null
            StrictHostKeyChecking yes
    """)


def _child_of(pid: int) -> int:
    """Returns the first child of a process, which is the first process of its namespaces."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children and os.readlink(f"/proc/{children[0]}/ns/pid") != os.readlink("/proc/self/ns/pid"):
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError(f"process {pid} has no child in namespaces of its own")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def servers(directory: Path) -> Iterator[Servers]:
    """Puts this thread into a network of its own, `10.77.0.1`, for servers to be added."""
    with open("/proc/thread-self/ns/net") as home:
        assert _libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        there: Servers | None = None
        try:
            _run("ip", "link", "set", "lo", "up")
            _run("ip", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
            _run("ip", "address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
            _run("ip", "link", "set", BRIDGE, "up")
            there = Servers(directory)
            yield there
        finally:
            if there:
                there.end()
            assert _libc.setns(home.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
