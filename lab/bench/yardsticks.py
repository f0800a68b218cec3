"""What is measured: the forwarder's engines, and what they are held against; how each is set going on a wire.

Those that balance do the same work: parse, VIP, connection table, lookup table of 65,537 slots, GRE. DPDK's testpmd
and the kernel's own forwarding only send packets back: they show what the way in and out costs.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

from maglev import config as configuration
from maglev.engine.control import ControlError, request
from maglev.errors import ConfigError
from maglev.hashing import lookup_table

from ..errors import LabError
from ..site import Site
from ..waiting import wait_until
from . import needs
from .needs import Need
from .programs import SOURCES, compiled
from .traffic import Counts
from .wiring import FORWARDER_CORE, GENERATOR_CORE, MAGLEV, READY_TIMEOUT_S, VIP, VIP_PORT, Wire

FIRST_BACKEND = IPv4Address("10.2.0.1")
SMALL_TABLE, LARGE_TABLE = 65537, 655373  # Maglev §5.3
SLOTS_PER_BACKEND = 100  # Maglev §3.4: M > 100 N, and no backend has over 1 % more than another
START_S = 60.0  # for a forwarder that takes in 10,000 VIPs or backends
DPDK_MEMORY = ("--no-huge", "--no-shconf", "-m", "512", "--no-pci", "--no-telemetry")  # nothing but its own memory
DPDK_PORT = ("--port-topology=loop", "--total-num-mbufs=20000", "--burst=64", "--rxd=1024", "--txd=1024")

FlowsMet = Callable[[], int]  # how many flows are in a forwarder's connection table


@dataclass(frozen=True)
class Cluster:
    """The configuration that the forwarder is given: so many VIPs on one pool of so many backends."""

    vips: int = 1
    backends: int = 100
    protocol: str = "tcp"
    connection_table: bool = True

    def document(self, engine: str, busy_poll: bool = False) -> dict[str, Any]:
        """Returns the configuration's document; a connection table has its memory before the first packet."""
        options: dict[str, Any] = {"engine": engine}
        options |= {"busy_poll": True} if busy_poll else {}
        options["connection_table"] = {"huge_pages": True} if self.connection_table else {"enabled": False}
        options |= {"table_size": LARGE_TABLE} if self.backends * SLOTS_PER_BACKEND > SMALL_TABLE else {}
        common = {"protocol": self.protocol, "port": VIP_PORT, "pool": "web"}
        vips = [{"name": f"v{i}", "address": str(IPv4Address(VIP) + i), **common} for i in range(self.vips)]
        return {
            "maglevs": [{"name": "m1", "address": MAGLEV}],
            "pools": {"web": {"endpoints": [{"address": address} for address in backend_addresses(self.backends)]}},
            "vips": vips,
            "forwarder": options,
        }


def backend_addresses(count: int) -> list[str]:
    """Returns the addresses of so many backends."""
    return [str(FIRST_BACKEND + i) for i in range(count)]


@dataclass
class Bench:
    """What all measurements of one bench share: its site, and the yardsticks' lookup table in a file."""

    site: Site
    lookup_table: Path = field(init=False)

    def __post_init__(self) -> None:
        self.lookup_table = self.site.directory / "lookup_table"
        table = lookup_table(backend_addresses(Cluster().backends), SMALL_TABLE)
        self.lookup_table.write_bytes(table.astype("<u2").tobytes())


Start = Callable[[Bench, Wire], FlowsMet | None]


@dataclass(frozen=True)
class Yardstick:
    """One way of forwarding, how it is set going, and how its packets come back."""

    engine: str  # the row that it belongs to
    start: Start
    variant: str = ""  # which of several of an engine; the best one makes the row
    needs: tuple[Need, ...] = ()
    returns: Literal["balanced", "plain"] = "balanced"

    @property
    def name(self) -> str:
        """Returns what a person calls it."""
        return f"{self.engine} {self.variant}".strip()

    def came_back(self, counts: Counts) -> int:
        """Returns how many of its packets came back."""
        return counts.balanced if self.returns == "balanced" else counts.plain

    def missing(self) -> str:
        """Returns why it cannot run here, "" if it can."""
        return needs.missing(self.needs)


# --- the forwarder ---------------------------------------------------------------------------------------------------


def maglev(engine: str, busy_poll: bool = False, cluster: Cluster = Cluster()) -> Yardstick:
    """Returns the forwarder itself with one of its engines."""
    document = cluster.document(engine, busy_poll)
    unknown = Need(f"the forwarder's engine {engine}{' with busy_poll' * busy_poll}", partial(_is_valid, document))
    start = partial(_start_maglev, engine=engine, document=document)
    return Yardstick(engine, start, "busy" if busy_poll else "", (unknown, *ENGINE_NEEDS.get(engine, ())))


ENGINE_NEEDS: Mapping[str, tuple[Need, ...]] = {"xdp": needs.XDP_SOCKETS}


def _is_valid(document: Mapping[str, Any]) -> bool:
    with contextlib.suppress(ConfigError):
        configuration.parse(json.dumps(document))
        return True
    return False


def _start_maglev(bench: Bench, wire: Wire, engine: str, document: Mapping[str, Any]) -> FlowsMet | None:
    file, control = (bench.site.directory / f"{wire.maglev_end}.{suffix}" for suffix in ("yaml", "sock"))
    file.write_text(json.dumps(document))  # JSON is YAML
    wire.drop_vip_packets()
    options = ["--config", str(file), "--control", str(control), "--maglev", "m1"]
    process = wire.maglev.start(engine, [sys.executable, "-m", "maglev", "forwarder", *options], FORWARDER_CORE)

    def missing() -> str:
        _require_alive(wire, engine, process)
        with contextlib.suppress(ControlError):
            return "" if request(control, "GET", "/status", START_S)["ready"] else "not ready"
        return "no answer"

    wait_until(missing, START_S, f"a start of the forwarder with engine {engine}")
    used = request(control, "GET", "/status", START_S)["engine"]
    if used != engine:
        raise LabError(f"the forwarder was to use engine {engine}, and uses {used}")
    if document["forwarder"].get("connection_table", {}).get("enabled") is False:
        return None
    return lambda: _entries(control)


def _entries(control: Path) -> int:
    return int(request(control, "GET", "/statistics", START_S)["connections"]["entries"])


# --- the others ------------------------------------------------------------------------------------------------------


def _start_program(bench: Bench, wire: Wire, name: str, command: list[str], ready: str = "ready") -> None:
    """Starts a program on the Maglev's end of the wire, and waits until it has said that it is ready."""
    wire.drop_vip_packets()
    process = wire.maglev.start(name, command, FORWARDER_CORE)

    def missing() -> str:
        _require_alive(wire, name, process)
        return "" if ready in wire.maglev.log(name).read_text(errors="replace") else f"it has not said {ready!r}"

    wait_until(missing, READY_TIMEOUT_S, f"a start of {name}")


def _require_alive(wire: Wire, name: str, process: subprocess.Popen[str]) -> None:
    """Raises LabError with its last words if a process has ended."""
    if process.poll() is not None:
        words = wire.maglev.log(name).read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise LabError(f"{name} ended at once, and said: {words[-1]}")


def _start_c_ring(bench: Bench, wire: Wire) -> None:
    _start_program(bench, wire, "c-ring", [str(compiled("ring.c")), wire.maglev_end, str(bench.lookup_table)])


def _start_c_xdp(bench: Bench, wire: Wire, mode: str) -> None:
    command = [str(compiled("af_xdp.c")), wire.maglev_end, str(bench.lookup_table), mode]
    _start_program(bench, wire, "c-xdp", command)


def _start_kernel_xdp(bench: Bench, wire: Wire) -> None:
    wire.give_kernel_a_core()
    wire.take_xdp_frames(compiled("pass.bpf.c"))
    program, loaded = compiled("kernel_xdp.c"), compiled("kernel_xdp.bpf.c")
    command = [str(program), wire.maglev_end, str(bench.lookup_table), str(loaded)]
    _start_program(bench, wire, "kernel-xdp", command)


def _start_scapy(bench: Bench, wire: Wire) -> None:
    script = str(SOURCES / "balance_with_scapy.py")
    command = [sys.executable, script, wire.maglev_end, str(bench.lookup_table)]
    _start_program(bench, wire, "scapy", command)


def _start_testpmd(bench: Bench, wire: Wire, device: str) -> None:
    """Starts DPDK's testpmd, which forwards on a core of its own; its main thread sleeps on the generator's.

    stdbuf, or what it says would wait in a buffer for ever; RUNTIME_DIRECTORY, or it leaves an empty one behind.
    """
    cores = ["-l", f"{GENERATOR_CORE},{FORWARDER_CORE}", "--main-lcore", str(GENERATOR_CORE)]
    device = device.format(interface=wire.maglev_end)
    forwarding = ["--forward-mode=macswap", "--auto-start", "--nb-cores=1", "--stats-period=1000", *DPDK_PORT]
    environment = ["env", f"RUNTIME_DIRECTORY={bench.site.directory}"]
    command = [
        *environment,
        "stdbuf",
        "-oL",
        "dpdk-testpmd",
        *DPDK_MEMORY,
        *cores,
        f"--vdev={device}",
        "--",
        *forwarding,
    ]
    both_cores = ["taskset", "--cpu-list", f"{GENERATOR_CORE},{FORWARDER_CORE}"]
    _start_program(bench, wire, "testpmd", [*both_cores, *command], ready="packet forwarding - ")


def start_kernel_forwarding(bench: Bench, wire: Wire, own_core: bool = True) -> None:
    """Has the Maglev's kernel forward by its routes: on the forwarder's core, or at once where a packet arrives."""
    if own_core:
        wire.give_kernel_a_core()
    wire.maglev.set_sysctls({"net.ipv4.ip_forward": "1"})


AF_PACKET = "net_af_packet0,iface={interface},qpairs=1,qdisc_bypass=1,blocksz=65536,framesz=2048,framecnt=4096"
AF_XDP = "net_af_xdp0,iface={interface}"
ENGINES = (
    "xdp", "ring", "socket", "c-ring", "c-xdp", "kernel-xdp", "dpdk-af-packet", "dpdk-af-xdp", "kernel-forward", "scapy"
)  # fmt: skip
LIMITS = ("c-ring", "c-xdp", "kernel-xdp")  # what the others are held against


def all_yardsticks() -> list[Yardstick]:
    """Returns every yardstick, in the order of the rows."""
    return [
        maglev("xdp"),
        maglev("ring"),
        maglev("socket"),
        Yardstick("c-ring", _start_c_ring, needs=needs.C),
        Yardstick("c-xdp", partial(_start_c_xdp, mode="native"), "native", (*needs.BPF, *needs.XDP_SOCKETS)),
        Yardstick("c-xdp", partial(_start_c_xdp, mode="generic"), "generic", (*needs.BPF, *needs.XDP_SOCKETS)),
        Yardstick("kernel-xdp", _start_kernel_xdp, needs=needs.BPF),
        Yardstick("dpdk-af-packet", partial(_start_testpmd, device=AF_PACKET), "", needs.DPDK_AF_PACKET, "plain"),
        Yardstick("dpdk-af-xdp", partial(_start_testpmd, device=AF_XDP), "", needs.DPDK_AF_XDP, "plain"),
        Yardstick("kernel-forward", start_kernel_forwarding, returns="plain"),
        Yardstick("scapy", _start_scapy),
    ]
