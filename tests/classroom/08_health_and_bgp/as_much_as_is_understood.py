"""Announces those VIPs that it understands, and half a configuration is served.

criterion: all_or_nothing
says: expected the routes: [], got ['192.0.2.1/32']
"""

import contextlib
from ipaddress import ip_network

from maglev.announcements import commands
from maglev.controller import run
from maglev.health import step


def wanted(status):
    found = set()
    if status and status.get("ready") is True and status.get("draining") is False:
        for vip in status.get("vips") or []:
            with contextlib.suppress(ValueError):
                found.add(ip_network(vip))
    return frozenset(found)
