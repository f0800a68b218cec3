"""What routers do: the way of answers, and how soon VIPs are announced and withdrawn."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import TYPE_CHECKING

from ..errors import NotInTime
from ..verdict import Verdict
from ..waiting import wait_until
from .fates import shown

if TYPE_CHECKING:
    from ..observe import Snapshot

Take = Callable[[], "Snapshot"]


def direct_server_return(after: Snapshot, before: Snapshot | None = None) -> Verdict:
    """No answer from a VIP has crossed a Maglev's link, though requests have; `before` is where the count begins."""
    sent, returned = after.ecmp_packets(), _returned(after)
    if before is not None:
        sent = {name: count - before.ecmp_packets().get(name, 0) for name, count in sent.items()}
        returned = {link: count - _returned(before).get(link, 0) for link, count in returned.items()}
    crossed, requests = sum(returned.values()), sum(sent.values())
    return Verdict(
        "answers go straight to the client (direct server return)",
        requests > 0 and crossed == 0,
        "requests to VIPs, and no packet from a VIP on a Maglev's link",
        f"{requests} packets to VIPs sent to Maglevs, {crossed} packets from VIPs on their links",
        shown([f"{link}: {count} packets from VIPs" for link, count in returned.items() if count]),
        "captures of these links, and the endpoints' routes: an answer's next hop must be the router",
    )


def _returned(snapshot: Snapshot) -> dict[str, int]:
    """Returns packets from VIPs by link, such as r1-m1."""
    return {
        f"{name}-{maglev}": packets
        for name, router in snapshot.routers.items()
        for maglev, packets in router.packets_returned.items()
    }


def announced_within(take: Take, maglev: str, within_s: float) -> Verdict:
    """Every router sends every VIP of a Maglev's to it, at the latest so many seconds from now."""
    return _happens(take, maglev, within_s, not_announced, "announced", "the controller (controller.log, exabgp.log)")


def withdrawn_within(take: Take, maglev: str, within_s: float) -> Verdict:
    """No router sends any VIP to a Maglev, at the latest so many seconds from now."""
    return _happens(take, maglev, within_s, not_withdrawn, "withdrawn", "BGP's session (birdc show protocols all)")


def _happens(
    take: Take, maglev: str, within_s: float, lacks: Callable[[Snapshot, str], list[str]], done: str, cause: str
) -> Verdict:
    """Polls until nothing is missing any more, or the time is up."""
    missing: list[str] = []
    looks = 0

    def what_is_missing() -> str:
        nonlocal looks
        missing[:] = lacks(take(), maglev)
        looks += 1
        return "; ".join(missing)

    try:
        took_s = wait_until(what_is_missing, within_s, f"{maglev} {done}")
        actual = f"after {took_s:.3f} s, the {_nth(looks)} look"
    except NotInTime:
        took_s, actual = float("inf"), f"not after {within_s:g} s and {looks} looks"
    return Verdict(
        f"{maglev} is {done} within {within_s:g} s",
        took_s <= within_s,
        f"within {within_s:g} s no router {'lacks a route to it' if done == 'announced' else 'has a route to it'}",
        actual,
        shown(missing),
        f"{maglev}: {cause}, GET /status of its forwarder; the routers: ip route show proto bird",
    )


def _nth(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"


def not_announced(snapshot: Snapshot, maglev: str) -> list[str]:
    """Returns what is missing until every router sends it all its VIPs, a phrase each; [] if nothing is."""
    view = snapshot.maglevs.get(maglev)
    if view is None:
        return [f"{maglev}'s forwarder does not answer"]
    own = set(snapshot.addresses_of(maglev))
    families = {ip_network(address).version for address in own}
    wanted = [vip for vip in view.status["vips"] if ip_network(vip).version in families]
    return [
        f"{name} does not send {vip} to {maglev}"
        for name, router in snapshot.routers.items()
        if maglev in router.sessions
        for vip in wanted
        if own.isdisjoint(router.ecmp.get(vip, ()))
    ]


def not_withdrawn(snapshot: Snapshot, maglev: str) -> list[str]:
    """Returns the routes that are still there, a phrase each; [] if none is."""
    own = set(snapshot.addresses_of(maglev))
    return [
        f"{name} still sends {vip} to {maglev}"
        for name, router in snapshot.routers.items()
        for vip, hops in router.ecmp.items()
        if own & set(hops)
    ]
