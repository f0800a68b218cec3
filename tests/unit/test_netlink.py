"""Routes and counters, asked of a kernel that has them; `ip` is the other reader of the same tables."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest
from namespaces import DEADLINE_S, ip, new_namespace, why_not

from lab import netlink
from lab.errors import LabError
from lab.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=str(why_not()))

SET_UP = """\
link add here0 type veth peer name there0
link add here1 type veth peer name there1
link set here0 up
link set there0 up
link set here1 up
link set there1 up
address add 10.9.0.1/24 dev here0
address add 10.8.0.1/24 dev here1
address add fd01::1/64 dev here0 nodad
address add fd02::1/64 dev here1 nodad
route add 192.0.2.1 proto bird nexthop via 10.9.0.2 nexthop via 10.8.0.2
route add 192.0.2.128/28 proto bird via 10.9.0.3
route add 192.0.2.9 via 10.9.0.3
route add 192.0.2.77 proto bird via 10.9.0.3 table 100
route add 198.51.100.0/24 proto bird via inet6 fd01::7 dev here0
-6 route add 2001:db8::1 proto bird nexthop via fd01::2 nexthop via fd02::2
-6 route add 2001:db8:1::/48 proto bird via fd01::2
"""


@pytest.fixture
def here():
    """Returns what runs a function in a network of its own, which has the routes above."""
    with new_namespace() as space:

        def run(function, *arguments):
            return space.submit(function, *arguments).result(DEADLINE_S)

        for line in SET_UP.splitlines():
            run(ip, line)
        yield run


def routes():
    return netlink.bgp_routes(threading.get_native_id())


def test_bird_s_routes_of_the_main_table_are_found_and_no_others(here):
    assert here(routes) == {
        "192.0.2.1": ("10.8.0.2", "10.9.0.2"),
        "192.0.2.128/28": ("10.9.0.3",),
        "198.51.100.0/24": ("fd01::7",),
        "2001:db8::1": ("fd01::2", "fd02::2"),
        "2001:db8:1::/48": ("fd01::2",),
    }


def test_they_are_those_that_ip_lists(here):
    printed = json.loads(here(ip, "-j -4 route show table main proto bird"))
    printed += json.loads(here(ip, "-j -6 route show table main proto bird"))
    listed = {
        route["dst"]: tuple(sorted(hop.get("gateway") or hop["via"]["host"] for hop in route.get("nexthops", [route])))
        for route in printed
    }
    assert here(routes) == listed
    assert len(listed) == 5


def test_next_hops_whose_link_is_down_are_not_usable(here):
    """The kernel takes up to a second to notice that a carrier has gone (linkwatch)."""
    here(ip, "link set there1 down")
    left = {"192.0.2.1": ("10.9.0.2",), "2001:db8::1": ("fd01::2",)}
    wait_until(lambda: "" if left.items() <= here(routes).items() else str(here(routes)), DEADLINE_S, "a dead link")


def test_more_routes_than_one_answer_holds_are_all_found(here):
    batch = "\n".join(f"route add 203.0.{n // 256}.{n % 256} proto bird via 10.9.0.2" for n in range(3000))
    here(lambda: subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True))
    assert sum(destination.startswith("203.0.") for destination in here(routes)) == 3000


def test_counters_are_those_that_nft_lists(here):
    rules = """table inet maglab {
        counter to_m1 { packets 7 bytes 700; }
        counter flows_m1 { packets 18446744073709551615 bytes 1; }
    }
    table inet other {
        counter to_m1 { packets 9 bytes 9; }
    }
    """
    here(lambda: subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True))
    counted = here(lambda: netlink.counters(threading.get_native_id(), "maglab"))
    assert counted == {"to_m1": 7, "flows_m1": 2**64 - 1}


def test_nobody_s_kernel_is_said_so():
    with pytest.raises(LabError, match="999999999"):
        netlink.bgp_routes(999999999)


def test_a_list_that_changed_meanwhile_is_asked_for_again(monkeypatch):
    """The kernel marks what it wrote down while the table changed (NLM_F_DUMP_INTR)."""
    asked = []

    def dump(kernel, question, answer, body):
        asked.append(question)
        return ([b"half"], False) if len(asked) < 3 else ([b"whole"], True)

    monkeypatch.setattr(netlink, "_dump", dump)
    here = threading.get_native_id()
    found = netlink._asked(here, netlink.NETLINK_ROUTE, netlink.RTM_GETROUTE, netlink.RTM_NEWROUTE, b"")
    assert (found, len(asked)) == ([b"whole"], 3)
