"""The rack around the switch: a client, Maglevs, the ports that lead to them, and the VIPs that they may announce."""

from __future__ import annotations

from lab.classroom import Case
from lab.sdn.rules import Bucket, Neighbour, Port

VIPS = ("192.0.2.1", "192.0.2.2", "192.0.2.128/28", "2001:db8::1")
EVERY_MAGLEV = ("m1", "m2", "m3", "m4", "m5")
CLIENT = 1  # the port that leads to it; Maglev mN is behind port N + 1


def ports() -> dict[int, Port]:
    """Returns the switch's ports, by their numbers."""
    return {
        number: Port(number, 1000 + number, f"02:00:00:01:00:{number:02x}", 1500 if number == CLIENT else 1600)
        for number in range(1, len(EVERY_MAGLEV) + 2)
    }


def hop(name: str) -> Neighbour:
    """Returns a Maglev as a next hop."""
    number = int(name[1:])
    return Neighbour(f"10.1.{number}.2", number + 1, f"0a:00:00:00:00:{number + 1:02x}")


def client() -> Neighbour:
    """Returns the client as a next hop."""
    return Neighbour("10.0.1.2", CLIENT, "0a:00:00:00:00:01")


def maglev(port: int) -> str:
    """Returns the name of the Maglev behind a port."""
    return f"m{port - 1}"


def bucket(name: str) -> Bucket:
    """Returns the bucket for a Maglev, numbered by its port."""
    to = hop(name)
    return Bucket(to.port, to.port, ports()[to.port].mac, to.mac)


def some_maglevs(case: Case) -> list[str]:
    """Returns some Maglevs, one at least."""
    return case.random.sample(EVERY_MAGLEV, case.random.randrange(1, 6))


def some_routes(case: Case) -> dict[str, frozenset[str]]:
    """Returns some VIPs, each announced by some Maglevs."""
    vips = case.random.sample(VIPS, case.random.randrange(1, len(VIPS) + 1))
    return {vip: frozenset(some_maglevs(case)) for vip in vips}
