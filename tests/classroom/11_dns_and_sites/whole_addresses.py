"""Expects a whole address, whatever the prefix's length.

criterion: a_resolver_tells_whose_query_it_is
says: AddressValueError
"""

from ipaddress import IPv4Address, IPv6Address

from maglev.name_answers import Subnet


def client_subnet(option):
    kind = {1: IPv4Address, 2: IPv6Address}[option[1]]
    return Subnet(kind(bytes(option[4:])), option[2])
