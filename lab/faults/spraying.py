"""A router that hashes each fragment by what it shows: the first by its ports, later ones without (Maglev §4.3).

Linux hashes all fragments of a datagram alike, so they stay together; other routers do not. Here such a router deals
fragments out over its next hops in turn: whatever depends on their coming to one Maglev shows.
"""

from __future__ import annotations

from typing import Any

from ..errors import WrongUse
from ..nodes import NFT_FAMILIES

TABLE = "maglab_spray"
FIRST_MARK = 0x5A00  # of packets, a mark for each next hop; and the numbers of the routing tables
IS_FRAGMENT = {4: "ip frag-off & 0x3fff != 0", 6: "exthdr frag exists"}  # a first one has its offset 0 and "more" set


def begin(router: Any, maglevs: list[str]) -> None:
    """Has a router deal the fragments of packets to VIPs out over these Maglevs."""
    hops = {other.node.name: (own, other) for own, other in router.neighbours("maglev")}
    if unknown := sorted(set(maglevs) - set(hops)):
        raise WrongUse(f"{router.name} has no link to {unknown[0]}; it has to {', '.join(hops)}")
    for version in NFT_FAMILIES:
        _batch(router, version, [
            line
            for number, name in enumerate(maglevs)
            for line in _to_maglev(router, version, FIRST_MARK + number, *hops[name])
        ])  # fmt: skip
    rules = "".join(
        f"{family} daddr {router.vip_prefixes[version]} {IS_FRAGMENT[version]} "
        f"meta mark set numgen inc mod {len(maglevs)} offset {FIRST_MARK}\n"
        for version, family in NFT_FAMILIES.items()
    )
    chain = f"chain prerouting {{\ntype filter hook prerouting priority mangle;\n{rules}}}\n"
    router.run("nft", "-f", "-", text=f"table inet {TABLE} {{\n{chain}}}\n")


def end(router: Any, count: int) -> None:
    """Has the router send fragments as all packets again."""
    router.run("nft", "delete", "table", "inet", TABLE)
    marks = range(FIRST_MARK, FIRST_MARK + count)
    for version in NFT_FAMILIES:
        _batch(router, version, [
            line for mark in marks for line in (f"rule del fwmark {mark} lookup {mark}", f"route flush table {mark}")
        ])  # fmt: skip


def _to_maglev(router: Any, version: int, mark: int, own: Any, other: Any) -> list[str]:
    """Returns what sends packets of a family with a mark to the Maglev at the other end of a link."""
    hop = router.addresses_of(other)[version]
    route = f"route add {router.vip_prefixes[version]} via {hop} dev {own} table {mark}"
    return [route, f"rule add fwmark {mark} lookup {mark}"]


def _batch(router: Any, version: int, lines: list[str]) -> None:
    router.run("ip", f"-{version}", "-batch", "-", text="\n".join(lines) + "\n")
