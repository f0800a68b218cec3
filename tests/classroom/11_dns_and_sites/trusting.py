"""Reads what a client subnet should be, and never asks whether it is one.

criterion: malformed_subnets
says: expected ValueError, got
"""

from ipaddress import IPv4Address, IPv6Address

from maglev.name_answers import Subnet


def client_subnet(option):
    kind, size = {1: (IPv4Address, 4), 2: (IPv6Address, 16)}.get(option[1] if option[1:] else 1, (IPv4Address, 4))
    address = (bytes(option[4:]) + bytes(size))[:size]
    return Subnet(kind(address), option[2] if option[2:] else 0)
