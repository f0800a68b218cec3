"""What two VIPs have in common: through what a flood on one of them reaches the other (Maglev §2.2). Pure.

Shards keep VIPs apart: other Maglevs, with other connection tables and other links. Whatever two VIPs still share, a
flood on one may fill for the other too.

    an address     routers know addresses and not ports: such VIPs go wherever one of them goes
    Maglevs        their processors, links and connection tables
    endpoints      what comes through the Maglevs is theirs to bear, and so is every answer

Left out: what no configuration shows. Routers, the links that lead to them, and whoever the clients are.
"""

from __future__ import annotations

from typing import NamedTuple

from .config import Config, Vip
from .errors import MaglevError


class Common(NamedTuple):
    """What two VIPs share; nothing at all is `Common(False, frozenset(), frozenset())`."""

    address: bool  # one of their own, or through others that share addresses with both
    maglevs: frozenset[str]  # by name
    endpoints: frozenset[str]  # by address


def in_common(config: Config, one: str, other: str) -> Common:
    """Returns what two VIPs share, by their names; MaglevError for a VIP that there is not.

    A Maglev serves a VIP if its shard does, be it only while the VIP moves. Endpoints are those of all pools that may
    serve a VIP, nested ones and backups too.
    """
    first, second = _vip(config, one), _vip(config, other)
    return Common(
        address=other in config.sharing_addresses_with(one),
        maglevs=_maglevs(config, first) & _maglevs(config, second),
        endpoints=_endpoints(config, first) & _endpoints(config, second),
    )


def _vip(config: Config, name: str) -> Vip:
    found = next((vip for vip in config.vips if vip.name == name), None)
    if found is None:
        raise MaglevError(f"there is no VIP {name!r}; there are {', '.join(vip.name for vip in config.vips)}")
    return found


def _maglevs(config: Config, vip: Vip) -> frozenset[str]:
    return frozenset(machine.name for machine in config.maglevs if machine.shard in vip.served_by)


def _endpoints(config: Config, vip: Vip) -> frozenset[str]:
    return frozenset(str(member.address) for member in config.vip_members(vip))
