"""Work in another network namespace: it happens there and nowhere else, and says what went wrong."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from namespaces import ip, new_namespace

from lab import namespace
from lab.errors import LabError

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@pytest.fixture
def resident(lacking):
    """The number of a thread that lives in a network namespace of its own."""
    if lacking:
        pytest.skip(lacking)
    with new_namespace() as there:
        yield there.submit(threading.get_native_id).result()


def features(interface: str) -> str:
    return subprocess.run(["ethtool", "-k", interface], capture_output=True, text=True, check=True).stdout


def test_sysctls_and_processes_belong_to_the_namespace(resident):
    here = FORWARDING.read_text()
    there = "0" if here.strip() == "1" else "1"
    namespace.within(resident, lambda: namespace.set_sysctls({"net.ipv4.ip_forward": there}))
    assert namespace.within(resident, FORWARDING.read_text).strip() == there
    assert FORWARDING.read_text() == here
    links = namespace.within(resident, lambda: ip("-br link"))
    assert links.split()[0] == "lo"
    assert len(links.splitlines()) == 1, links
    assert os.readlink("/proc/thread-self/ns/net") == os.readlink(f"/proc/{os.getpid()}/ns/net"), "the caller has moved"


def test_what_is_switched_off_is_what_ethtool_switches_off(resident):
    def both() -> tuple[str, str, str]:
        ip("link add one type veth peer name other")
        before = features("one")
        namespace.switch_off_offloads(["one"])
        names = [word for name in ("tx", "gro", "gso", "tso") for word in (name, "off")]
        subprocess.run(["ethtool", "-K", "other", *names], check=True, capture_output=True)
        return before, features("one").replace("one", "other"), features("other")

    before, ours, ethtools = namespace.within(resident, both)
    assert "tx-checksumming: on" in before
    assert ours == ethtools
    assert "tx-checksumming: off" in ours


def test_what_cannot_be_done_is_said(resident):
    with pytest.raises(LabError, match=r"net\.ipv4\.no_such cannot be set to 1: No such file"):
        namespace.within(resident, lambda: namespace.set_sysctls({"net.ipv4.no_such": "1"}))
    with pytest.raises(LabError, match="the offloads of nowhere cannot be set: No such device"):
        namespace.within(resident, lambda: namespace.switch_off_offloads(["nowhere"]))


def test_a_process_that_is_gone_has_no_network():
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(LabError, match=f"cannot enter the network of process {gone.pid}"):
        namespace.within(gone.pid, lambda: None)
