"""Which BGP routes a Maglev announces, and the words that make ExaBGP do it (Maglev §2.1-2.2).

All or nothing: a fit forwarder announces every VIP of its shard, an unfit one none, and the routers send its share to
its peers. Pure; the commands are those of ExaBGP 5's text API.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

Route = IPv4Network | IPv6Network  # a host route, /32 or /128, or a prefix


def wanted(status: Mapping[str, Any] | None) -> frozenset[Route]:
    """Returns the routes to announce, given what a forwarder says of its readiness, or None where it did not answer.

    One route for each VIP's address or prefix, however many VIPs share it. No routes unless it says `ready`
    and not `draining`; an answer that cannot be understood does not say so.
    """
    if not status or status.get("ready") is not True or status.get("draining") is not False:
        return frozenset()
    try:
        return frozenset(ip_network(str(address)) for address in status["vips"])
    except (KeyError, TypeError, ValueError):
        return frozenset()


def commands(announced: frozenset[Route], wanted: frozenset[Route]) -> tuple[str, ...]:
    """Returns ExaBGP's commands that lead from the announced routes to the wanted ones: withdrawals first, sorted."""
    withdrawals = (f"withdraw route {route} next-hop self" for route in _in_order(announced - wanted))
    announcements = (f"announce route {route} next-hop self" for route in _in_order(wanted - announced))
    return (*withdrawals, *announcements)


def _in_order(routes: frozenset[Route]) -> list[Route]:
    return sorted(routes, key=lambda route: (route.version, route.network_address.packed))
