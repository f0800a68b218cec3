"""Measures the forwarder's packets per second, next to a bare loop that does no balancing, in one run.

    router's namespace (core 0)                    Maglev's namespace (core 1)
    generator -> r0 ============== veth ============== m0 -> forwarder
    packets counted as they come back on r0 <---------- in GRE

The generator sends as fast as it can, 60-byte TCP packets of 65,536 flows; what counts is what comes back.

    sudo .venv/bin/python tests/bench/forwarder.py [--seconds 3] [--runs 5]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from maglev.engine.control import ControlError, request
from maglev.engine.socket import MAX_FRAME_BYTES, open_socket
from maglev.packets import internet_sum

ROOT = Path(__file__).resolve().parents[2]
ROUTER, MAGLEV, VIP = "10.1.1.1", "10.1.1.2", "192.0.2.1"
ROUTER_MAC, MAGLEV_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
FLOWS, BACKENDS = 65536, 100
READY_TIMEOUT_S = 10.0
CONFIG = f"""
maglevs: [{{name: m1, address: {MAGLEV}}}]
pools: {{web: {{endpoints: [{", ".join(f"{{address: 10.2.0.{n}}}" for n in range(1, BACKENDS + 1))}]}}}}
vips: [{{name: www, address: {VIP}, protocol: tcp, port: 80, pool: web}}]
"""


def run(*command: str, text: str | None = None) -> None:
    """Runs a command, and raises with what it said if it fails."""
    subprocess.run(command, check=True, input=text, text=True, capture_output=True)


@contextlib.contextmanager
def two_namespaces() -> Iterator[tuple[str, str]]:
    """Yields the names of a router's and a Maglev's namespace, wired; they go at the end."""
    mark = secrets.token_hex(3)
    router, maglev = f"bench-r-{mark}", f"bench-m-{mark}"
    try:
        for name in (router, maglev):
            run("ip", "netns", "add", name)
        wire = ["link", "add", "r0", "address", ROUTER_MAC, "type", "veth"]
        run("ip", "-n", router, *wire, "peer", "name", "m0", "address", MAGLEV_MAC, "netns", maglev)
        for name, own, peer, mac, interface in (
            (router, ROUTER, MAGLEV, MAGLEV_MAC, "r0"),
            (maglev, MAGLEV, ROUTER, ROUTER_MAC, "m0"),
        ):
            run("ip", "-n", name, "address", "add", f"{own}/24", "dev", interface)
            run("ip", "-n", name, "link", "set", interface, "mtu", "1600", "up")
            run("ip", "-n", name, "neighbour", "add", peer, "lladdr", mac, "dev", interface, "nud", "permanent")
            run("ip", "netns", "exec", name, "ethtool", "-K", interface, "tx", "off", "gro", "off", "gso", "off")
        run("ip", "-n", maglev, "route", "add", "default", "via", ROUTER)
        drop = "table netdev sink { chain in { type filter hook ingress device r0 priority 0; policy drop; } }\n"
        run("ip", "netns", "exec", router, "nft", "-f", "-", text=drop.replace("; }", ";\n }").replace("} }", "}\n}"))
        yield router, maglev
    finally:
        for name in (router, maglev):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextlib.contextmanager
def in_namespace(name: str, core: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs this Python with arguments in a namespace, on one core, while the block lasts."""
    command = ["ip", "netns", "exec", name, "taskset", "-c", str(core), sys.executable, *arguments]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def counters(namespace: str) -> tuple[int, int]:
    """Returns packets received and sent on r0: what came back, and what was offered."""
    shown = subprocess.run(["ip", "netns", "exec", namespace, "cat", "/proc/net/dev"], capture_output=True, check=True)
    fields = next(line for line in shown.stdout.decode().splitlines() if "r0:" in line).split(":")[1].split()
    return int(fields[1]), int(fields[9])


def cpu_s(pid: int) -> float:
    """Returns the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(forwarder: list[str], seconds: float, control: Path | None) -> tuple[float, float, float]:
    """Returns packets per second that came back and that were offered, and the share of a core that it took."""
    with two_namespaces() as (router, maglev), in_namespace(maglev, 1, *forwarder) as process:
        if control is not None:
            wait_ready(control)
        with in_namespace(router, 0, __file__, "--generate"):
            wait_flowing(router)
            start, (back, sent), used = time.monotonic(), counters(router), cpu_s(process.pid)
            time.sleep(seconds)  # the measurement itself
            elapsed, (back_after, sent_after) = time.monotonic() - start, counters(router)
            share = (cpu_s(process.pid) - used) / elapsed
    return (back_after - back) / elapsed, (sent_after - sent) / elapsed, share


def wait_ready(control: Path) -> None:
    """Waits until the forwarder says that it is ready."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ControlError):
            if request(control, "GET", "/status")["ready"]:
                return
        time.sleep(0.01)
    raise SystemExit(f"the forwarder was not ready within {READY_TIMEOUT_S:g} s")


def wait_flowing(router: str) -> None:
    """Waits until packets come back, and the connection table has met every flow."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if counters(router)[0] > FLOWS:
            return
        time.sleep(0.05)
    raise SystemExit(f"no packets came back within {READY_TIMEOUT_S:g} s")


def generate() -> None:
    """Sends frames of all flows in turn, as fast as one socket can, for a bounded number of rounds."""
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
    sender.bind(("r0", 0))
    ethernet = bytes.fromhex((MAGLEV_MAC + ROUTER_MAC).replace(":", "")) + b"\x08\x00"
    frames = [ethernet + packet(number) for number in range(FLOWS)]
    send = sender.send
    for _ in range(1000):
        for frame in frames:
            with contextlib.suppress(OSError):
                send(frame)


def packet(flow: int) -> bytes:
    """Returns a TCP segment of a flow: 46 bytes with its headers, so the frame has 60."""
    source, destination = struct.pack("!I", 0x0A000000 + flow), socket.inet_aton(VIP)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 46, 0, 0x4000, 64, 6, 0, source, destination)
    header = header[:10] + struct.pack("!H", -internet_sum(header) % 0xFFFF) + header[12:]
    return header + struct.pack("!HHIIBBHHH6x", 1024 + flow % 60000, 80, 1, 1, 0x50, 0x10, 1024, 0, 0)


def bare_loop() -> None:
    """The yardstick: receives, puts one constant outer header in front, sends; looks at nothing."""
    packets = open_socket("m0")
    ethernet = bytes.fromhex((ROUTER_MAC + MAGLEV_MAC).replace(":", "")) + b"\x08\x00"
    outer = struct.pack(
        "!BBHHHBBH4s4sHH", 0x45, 0, 70, 0, 0x4000, 64, 47, 0, socket.inet_aton(MAGLEV), b"\n\2\0\1", 0, 0x0800
    )
    receive, send, front = packets.recv, packets.send, ethernet + outer
    while True:
        send(front + receive(MAX_FRAME_BYTES)[14:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--generate", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare-loop", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        generate()
    elif options.bare_loop:
        bare_loop()
    else:
        compare(options.seconds, options.runs)


def compare(seconds: float, runs: int) -> None:
    """Measures both in turn, and prints the medians and their ratio."""
    rates: dict[str, list[float]] = {"socket": [], "bare loop": []}
    with tempfile.TemporaryDirectory() as directory:
        config, control = Path(directory) / "maglev.yaml", Path(directory) / "control.sock"
        config.write_text(CONFIG)
        commands = {
            "socket": (["-m", "maglev", "forwarder", "--config", str(config), "--control", str(control)], control),
            "bare loop": ([__file__, "--bare-loop"], None),
        }
        for number in range(1, runs + 1):
            for name, (command, waits_for) in commands.items():
                back, offered, share = measure(command, seconds, waits_for)
                rates[name].append(back)
                print(
                    f"run {number}: {name:10} {back:9,.0f} of {offered:9,.0f} packets/s, {share:.0%} of a core",
                    flush=True,
                )
    medians = {name: statistics.median(seen) for name, seen in rates.items()}
    for name, median in medians.items():
        spread = f"[{min(rates[name]):,.0f}, {max(rates[name]):,.0f}]"
        print(f"{name:10} median {median:9,.0f} packets/s {spread}, {1e6 / median:.1f} us each")
    print(f"socket reaches {medians['socket'] / medians['bare loop']:.2f} of the bare loop")


if __name__ == "__main__":
    main()
