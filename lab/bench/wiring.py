"""The wire that is measured on: a router's and a Maglev's network namespace, "on a stick".

    router's namespace (core 0)                  Maglev's namespace (core 1)
    generator -> r… ============ veth ============ m… -> forwarder
    what comes back is counted and dropped <------- in GRE

The namespaces have no name: each belongs to a process that waits for our end of a pipe, and everything that is
started in them dies with us. So nothing stays behind, whatever ends us. Nor does anything leave them: they have no
other interface.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CannotStart, LabError
from ..site import Process, Site
from ..waiting import wait_until
from .programs import ROOT

GENERATOR_CORE, FORWARDER_CORE = 0, 1
ROUTER, MAGLEV = "10.1.1.1", "10.1.1.2"
ROUTER_MAC, MAGLEV_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
VIP, VIP_PORT, MOST_VIPS = "192.0.2.1", 80, 10_000
VIPS = "192.0.0.0/18"  # room for 10,000 VIPs from 192.0.2.1 on
MTU_BYTES = 1600  # GRE adds 24
READY_TIMEOUT_S = 20.0
END_TIMEOUT_S = 5.0
HOLDER = "mount -t sysfs none /sys && echo up && exec cat"  # /sys shows the interfaces of whoever mounts it
OWN_SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "1",  # or the kernel would speak of its own accord
    "net.ipv6.conf.default.disable_ipv6": "1",
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
}


class Namespace:
    """A network namespace, and the processes that were started in it."""

    def __init__(self, site: Site, name: str) -> None:
        self.name = name
        self._site = site
        self._started: list[subprocess.Popen[str]] = []
        self._holder = self._popen(
            ["unshare", "--net", "--mount", "sh", "-c", HOLDER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != "up\n":
            raise CannotStart(f"a network namespace could not be made: {self._holder.stderr.read().strip()}")
        self._enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--"]

    @property
    def pid(self) -> int:
        """Returns the process that holds the namespace."""
        return self._holder.pid

    def _popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Starts a process that dies with us, and enters it in the site's ledger."""
        environment = self._site.environment | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        bound = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        process = subprocess.Popen(bound, env=environment, text=True, start_new_session=True, **options)
        self._site.enter(Process.of(process.pid, f"{self.name}: {Path(command[-1]).name}"))
        return process

    def run(self, *command: str, text: str | None = None) -> str:
        """Runs a command here and returns what it prints; LabError with its complaint if it fails."""
        done = subprocess.run([*self._enter, *command], input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(command)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def set_sysctls(self, values: Mapping[str, str]) -> None:
        """Sets kernel parameters of this namespace."""
        self.run("sysctl", "-q", "-w", *(f"{name}={value}" for name, value in values.items()))

    def start(self, name: str, command: Sequence[str], core: int, **pipes: Any) -> subprocess.Popen[str]:
        """Starts a process here, on one core; what it says goes to NAME.log unless `pipes` say otherwise."""
        with open(self.log(name), "wb") as log:
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | pipes
            started = self._popen([*self._enter, "taskset", "--cpu-list", str(core), *command], **pipes)
        self._started.append(started)
        return started

    def log(self, name: str) -> Path:
        """Returns where a process's output goes."""
        return self._site.directory / f"{name}.log"

    def close(self) -> None:
        """Ends what was started here; the namespace goes with its holder."""
        for process in self._started:
            process.terminate()
        for process in [*self._started, self._holder]:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Closes a process's pipes and waits for its end, by force if it takes too long."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Wire:
    """Both namespaces and the interfaces at the ends of the wire between them."""

    router: Namespace
    maglev: Namespace
    router_end: str
    maglev_end: str

    def drop_vip_packets(self) -> None:
        """Has the Maglev's kernel drop VIP packets as soon as packet sockets have seen them, so that it costs little.

        Before routing, and not at the interface (tc): sockets that ask for IPv4 alone are served after that.
        """
        rules = (
            "add table ip bench\n"
            "add chain ip bench early { type filter hook prerouting priority raw; }\n"
            f"add rule ip bench early ip daddr {VIPS} drop\n"
        )
        self.maglev.run("nft", "-f", "-", text=rules)

    def take_xdp_frames(self, program: Path) -> None:
        """Has the router's end take frames that were sent by XDP_TX, as it does while a program of its own runs there.

        A program that only passes them on: they then become socket buffers, as what the other forwarders send is.
        """
        self.router.run("ip", "link", "set", "dev", self.router_end, "xdpdrv", "obj", str(program), "sec", "xdp")

    def give_kernel_a_core(self) -> None:
        """Has the Maglev's end of the wire served by a kernel thread, on the forwarder's core.

        What the kernel does with a packet would else be done on the generator's core, by whoever has sent it.
        """
        self.maglev.run("sh", "-c", f"echo 1 >/sys/class/net/{self.maglev_end}/threaded")
        wait_until(
            lambda: "" if list(_threads_of(self.maglev_end)) else "no thread", READY_TIMEOUT_S, "a thread for the wire"
        )
        for thread in _threads_of(self.maglev_end):
            os.sched_setaffinity(thread, {FORWARDER_CORE})


@contextlib.contextmanager
def wired(site: Site) -> Iterator[Wire]:
    """Yields two namespaces with a wire between them; both go at the end, with everything that was started in them."""
    mark = secrets.token_hex(3)  # the kernel's thread is found by the interface's name, so no two may have the same
    with contextlib.ExitStack() as undo:
        router, maglev = (
            undo.enter_context(contextlib.closing(Namespace(site, name))) for name in ("router", "maglev")
        )
        wire = Wire(router, maglev, f"r{mark}", f"m{mark}")
        _connect(wire)
        _set_up(router, wire.router_end, ROUTER, MAGLEV, MAGLEV_MAC)
        _set_up(maglev, wire.maglev_end, MAGLEV, ROUTER, ROUTER_MAC)
        maglev.run("ip", "route", "add", "default", "via", ROUTER)
        maglev.run("ethtool", "-K", wire.maglev_end, "gro", "on")  # NAPI, which frames sent by XDP need here
        yield wire


def _connect(wire: Wire) -> None:
    near = ["link", "add", wire.router_end, "address", ROUTER_MAC, "type", "veth"]
    far = ["peer", "name", wire.maglev_end, "address", MAGLEV_MAC, "netns", str(wire.maglev.pid)]
    wire.router.run("ip", *near, *far)


def _set_up(end: Namespace, interface: str, own: str, peer: str, peer_mac: str) -> None:
    """Gives one end its address, and makes it behave like a wire: nothing merged, no checksum left undone."""
    end.set_sysctls(OWN_SYSCTLS)
    commands = f"""\
address add {own}/24 dev {interface}
link set {interface} mtu {MTU_BYTES} up
neighbour add {peer} lladdr {peer_mac} dev {interface} nud permanent
"""
    end.run("ip", "-batch", "-", text=commands)
    end.run("ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off")


def _threads_of(interface: str) -> Iterator[int]:
    """Yields the kernel's threads that serve an interface; they are called napi/INTERFACE-NUMBER."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text().startswith(f"napi/{interface}-"):
                yield int(entry.name)
