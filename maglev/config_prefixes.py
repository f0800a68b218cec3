"""Prefix groups (Maglev §4.2): prefixes that stand for each other, so that one VIP is served in all of them.

The same service has the same suffix in every cluster. Where a group lists the prefixes of several clusters, a cluster
serves the VIPs of all of them: to take over another cluster's traffic is to add its prefix.

    prefix_groups: {public: [192.0.2.0/24, 198.51.100.0/24]}
    vips: [{name: www, prefix_group: public, suffix: 0.0.0.1, …}]      that is 192.0.2.1 and 198.51.100.1

The paper looks for the longest prefix, then for the longest suffix in its group. Prefixes here must not overlap: then
that is the same as the longest match of whole addresses, and each VIP can be placed in every prefix beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import BeforeValidator, RootModel

from maglev.config_fields import read_interface
from maglev.config_vips import Vip
from maglev.flow import Address

Network = IPv4Network | IPv6Network
Prefixes = tuple[Network, ...]
PrefixGroups = Mapping[str, Prefixes]

A_PREFIX = "a prefix that leaves bits for a suffix, such as 192.0.2.0/24 or 2001:db8::/64"
A_GROUP = "a list of at least one prefix, such as [192.0.2.0/24, 198.51.100.0/24]"


def _prefix(value: object) -> object:
    if isinstance(value, Network):
        return value
    found = read_interface(value)
    if found is None or found.network.prefixlen == found.network.max_prefixlen:
        raise ValueError(A_PREFIX)
    if found.ip != found.network.network_address:
        raise ValueError(f"a prefix without bits set behind it: {found.network}")
    return found.network


_Prefix = Annotated[Network, BeforeValidator(_prefix)]


def _listed(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(A_GROUP)
    return value


class PrefixGroup(RootModel[Annotated[tuple[_Prefix, ...], BeforeValidator(_listed)]]):
    """The prefixes of a group, as a file lists them."""


def misfit(vip: Vip, prefix: Network) -> str:
    """Returns what suffixes a prefix has room for, if it has none for a VIP's; "" if it has."""
    suffix = vip.suffix
    if suffix is None:
        return ""
    room = int(prefix.hostmask)
    is_block_within = vip.prefix_length is None or vip.prefix_length >= prefix.prefixlen
    if suffix.version == prefix.version and int(suffix) <= room and is_block_within:
        return ""
    first, last = _address_like(prefix, 0), _address_like(prefix, room)
    return f"a suffix within the {room.bit_length()} bits that {prefix} leaves: from {first} to {last}"


def _address_like(prefix: Network, number: int) -> Address:
    return type(prefix.network_address)(number)


def placed(vip: Vip, groups: PrefixGroups) -> tuple[Vip, ...]:
    """Returns a VIP at each of its addresses: once for each prefix of its group, into which its suffix must fit."""
    if vip.prefix_group is None:
        return (vip,)
    return tuple(_at(vip, prefix) for prefix in groups[vip.prefix_group])


def _at(vip: Vip, prefix: Network) -> Vip:
    address = _address_like(prefix, int(prefix.network_address) | int(vip.suffix or 0))
    return vip.model_copy(update={"address": address, "prefix_group": None, "suffix": None})
