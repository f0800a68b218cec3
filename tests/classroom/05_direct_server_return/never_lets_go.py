"""Adds VIPs, and never takes one away.

criterion: holds_the_vips
says: expected the VIPs that are this machine's: ['192.0.2.2/32', '192.0.2.3/32'], got
"""

import subprocess

import maglev.engine.held_vips


class HeldVips(maglev.engine.held_vips.HeldVips):
    def follow(self, vips):
        for vip in vips:
            subprocess.run(["ip", "address", "add", str(vip), "dev", "lo"], check=False, capture_output=True)
