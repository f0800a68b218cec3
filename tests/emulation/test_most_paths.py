"""A router spreads over as many next hops as topologies allow: BIRD and the kernel, with a route of each family."""

from __future__ import annotations

import os
import subprocess

import pytest
from wires import VIP, VIP6

from lab import bird, netlink
from lab.nodes import MOST_PATHS
from lab.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of one's own is for root alone")

SET_UP = """
ip link set lo up
ip link add near type veth peer name far
sysctl -qw net.ipv6.conf.near.accept_dad=0
ip link set near up
ip link set far up
ip address add 10.0.0.1/16 dev near
ip address add fd00::1/64 dev near
exec bird -f -c {file} -s {control}
"""
CONFIGURATION = """
log stderr all;
router id 10.0.0.1;
protocol device {{}}
protocol direct {{ ipv4; ipv6; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_STATIC; }}; merge paths on limit {most}; }}
protocol kernel {{ ipv6 {{ import none; export where source = RTS_STATIC; }}; merge paths on limit {most}; }}
protocol static {{ ipv4; route {vip}/32 {hops}; }}
protocol static {{ ipv6; route {vip6}/128 {hops6}; }}
"""


def test_the_kernel_gets_all_of_both_families(tmp_path):
    hops = [f"10.0.1.{number}" for number in range(1, MOST_PATHS + 1)]
    hops6 = [f"fd00::1:{number:x}" for number in range(1, MOST_PATHS + 1)]
    told = {"hops": " ".join(f"via {hop}" for hop in hops), "hops6": " ".join(f"via {hop}" for hop in hops6)}
    file, control = tmp_path / "bird.conf", tmp_path / "bird.ctl"
    file.write_text(CONFIGURATION.format(most=MOST_PATHS, vip=VIP, vip6=VIP6, **told))
    script = SET_UP.format(file=file, control=control)
    with subprocess.Popen(["unshare", "-n", "sh", "-ec", script], stderr=subprocess.DEVNULL) as process:

        def missing():
            if not bird.answer(control, "show status"):
                return "BIRD does not answer"
            routes = {
                vip: sorted(there) for vip, there in netlink.bgp_routes(process.pid).items() if vip in (VIP, VIP6)
            }
            wanted = {VIP: sorted(hops), VIP6: sorted(hops6)}
            return "" if routes == wanted else f"{ ({vip: len(there) for vip, there in routes.items()}) } next hops"

        try:
            wait_until(missing, 10.0, f"{MOST_PATHS} next hops")
        finally:
            process.kill()
