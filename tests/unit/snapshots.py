"""Synthetic snapshots for the tests of verdicts: a rack with one router, three Maglevs and what the test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.connections import Connection
from lab.observe import ESTABLISHED, MaglevView, RouterView, Snapshot

VIP = "192.0.2.1"
ADDRESSES = {f"10.1.{number}.2": f"m{number}" for number in range(1, 9)}
NAMES = {**ADDRESSES, **{f"10.2.{number}.2": f"s{number}" for number in range(1, 9)}}


def maglev(
    digest: str = "aa", forwarded: int = 0, drops: Mapping[str, int] | None = None, uptime_s: float = 5.0, **more: Any
) -> MaglevView:
    """A forwarder that answers."""
    status = {"pools": {"web": {"table_digest": digest}}, "uptime_s": uptime_s, "vips": [VIP], "ready": True}
    return MaglevView(status, {"forwarded": forwarded, "drops": dict(drops or {})}, **more)


def router(
    hops: Sequence[str],
    flows: Mapping[str, int] | None = None,
    packets: Mapping[str, int] | None = None,
    returned: Mapping[str, int] | None = None,
) -> RouterView:
    """A router that sends the VIP to Maglevs, by name."""
    addresses = {name: address for address, name in ADDRESSES.items()}
    sessions = dict.fromkeys(("m1", "m2", "m3"), ESTABLISHED)
    ecmp = {VIP: tuple(sorted(addresses[name] for name in hops))} if hops else {}
    return RouterView(ecmp, sessions, dict(packets or {}), dict(returned or {}), dict(flows or {}))


def snapshot(
    routers: Mapping[str, RouterView] | RouterView, maglevs: Mapping[str, MaglevView | None] | None = None
) -> Snapshot:
    """A lab at one moment."""
    seen = {"r1": routers} if isinstance(routers, RouterView) else routers
    views = {name: maglev() for name in ("m1", "m2", "m3")} if maglevs is None else maglevs
    return Snapshot(views, seen, names=NAMES)


def connection(number: int, fate: str = "alive", endpoint: str = "s1") -> Connection:
    """A connection of client c1."""
    return Connection("c1", number, fate, endpoint, 17, 12.0)
