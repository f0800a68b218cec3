"""Network namespaces of a test's own: a Maglev's machine and its router, joined by veth, for tests of what does I/O."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from maglev.engine import socket as engine

CLONE_NEWNET = 0x40000000  # linux/sched.h
ETH_P_IP = 0x0800
DEADLINE_S = 8.0
MAGLEV, ROUTER, SECOND_ROUTER = "10.1.1.2", "10.1.1.1", "10.1.9.1"
ENDPOINT, OTHER_ENDPOINT = "10.2.1.2", "10.2.2.2"
LIBC = ctypes.CDLL(None, use_errno=True)


def new_namespace():
    """A thread with a network namespace to itself, which goes when its last thread and socket have gone."""
    return ThreadPoolExecutor(max_workers=1, initializer=_unshare)


def _unshare():
    if LIBC.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")


def why_not():
    """What this machine lacks for these tests; None if nothing."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None:
        return "needs the ip command"
    with new_namespace() as here:
        try:
            here.submit(ip, "link add maglev-try0 type veth peer name maglev-try1").result(DEADLINE_S)
        except (OSError, RuntimeError) as error:
            return f"needs network namespaces and veth, which this machine refuses: {error}"
    return None


def ip(command):
    """Runs an `ip` command in the namespace of the thread that calls; returns what it says."""
    done = subprocess.run(["ip", *command.split()], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {command}: {done.stderr.strip()}")
    return done.stdout


class Wires:
    """A Maglev's machine, where the test runs, and its router in a namespace next door, joined by two veth pairs."""

    def __init__(self, next_door):
        tag = secrets.token_hex(3)
        self.maglev, self.router = f"m{tag}-eth0", f"r{tag}-eth0"
        self.second, self.second_router = f"m{tag}-eth1", f"r{tag}-eth1"
        self._next_door = next_door
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        keep_ipv6_quiet()
        self.next_door(keep_ipv6_quiet)
        self._join(self.maglev, MAGLEV, self.router, ROUTER)
        self._join(self.second, "10.1.9.2", self.second_router, SECOND_ROUTER)
        self.wait_up()

    def next_door(self, body, *arguments, **options):
        """Runs `body` in the router's namespace; returns what it returns."""
        return self._next_door.submit(body, *arguments, **options).result(DEADLINE_S)

    def _join(self, ours, our_address, theirs, their_address):
        ip(f"link add {ours} type veth peer name {theirs}")
        ip(f"link set {theirs} netns /proc/{os.getpid()}/task/{self.next_door(threading.get_native_id)}/ns/net")
        ip(f"address add {our_address}/24 dev {ours}")
        ip(f"link set {ours} up")
        self.next_door(ip, f"address add {their_address}/24 dev {theirs}")
        self.next_door(Path(f"/proc/sys/net/ipv4/conf/{theirs}/arp_notify").write_text, "1")
        self.next_door(ip, f"link set {theirs} up")

    def wait_up(self):
        """Waits until both wires carry packets."""
        until = time.monotonic() + DEADLINE_S
        while not (are_up(self.maglev, self.second) and self.next_door(are_up, self.router, self.second_router)):
            assert time.monotonic() < until, "both wires should have come up"
            time.sleep(0.01)

    def with_ipv6(self):
        """Gives both wires IPv6 addresses, of the wire and of the site; returns the headers that lead over each."""
        for number, ours, theirs in ((1, self.maglev, self.router), (9, self.second, self.second_router)):
            for prefix in (f"fd00:1:{number}::", "fe80::"):  # without one of the wire NDP asks nobody (RFC 4291 §2.1)
                ip(f"-6 address add {prefix}2/64 dev {ours} nodad")
                self.next_door(ip, f"-6 address add {prefix}1/64 dev {theirs} nodad")
        return [header[:12] + b"\x86\xdd" for header in self.headers()]

    def router_socket(self):
        """A packet socket at the router's end: what is sent there arrives at the Maglev, what arrives came from it."""
        end = self.next_door(engine.open_socket, self.router)
        end.settimeout(DEADLINE_S)
        return end

    def headers(self):
        """The Ethernet headers that lead to the router over the first wire, and over the second."""
        first = self.next_door(link_address, self.router) + link_address(self.maglev) + b"\x08\x00"
        second = self.next_door(link_address, self.second_router) + link_address(self.second) + b"\x08\x00"
        return first, second


def keep_ipv6_quiet():
    """Has the kernel give new interfaces no IPv6 address of its own accord: it would speak of it to the routers."""
    Path("/proc/sys/net/ipv6/conf/default/addr_gen_mode").write_text("1")


def are_up(*interfaces):
    return all("state UP" in ip(f"link show {interface}") for interface in interfaces)


def link_address(interface):
    return bytes.fromhex(ip(f"-brief link show {interface}").split()[2].replace(":", ""))
