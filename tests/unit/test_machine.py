"""What a daemon asks of its machine, in a namespace whose addresses are known."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from namespaces import MAGLEV, ip

from maglev.engine import machine
from maglev.errors import PlatformError
from maglev.flow import pack_address

OWN6, PEER6, STRANGER = "fd00:1:1::2", "fd00:1:9::7", "10.1.2.2"


def addressed(*pairs):
    return {ip_address(address): name for address, name in pairs}


def test_own_addresses_are_of_both_families_and_none_of_one_link_only(in_namespace):
    def body(wires):
        wires.with_ipv6()
        ip(f"-6 address add {PEER6} peer fd00:1:9::8 dev {wires.second} nodad")
        assert "fe80::" in ip(f"-6 address show dev {wires.maglev}"), "the test is void: there is no such address"
        found = machine.own_addresses()
        for address, interface in ((MAGLEV, wires.maglev), (OWN6, wires.maglev), (PEER6, wires.second)):
            assert found.get(pack_address(address)) == interface, f"{address} should be on {interface}: {found}"
        assert pack_address("fd00:1:9::8") not in found, "the address of a peer is nobody's own"
        assert not [address for address in found if address.startswith(b"\xfe\x80")], found

    in_namespace(body)


def test_a_machine_finds_itself_by_an_address_of_either_family(in_namespace):
    def body(wires):
        wires.with_ipv6()
        others = [(STRANGER, "m2"), ("fd00:1:2::2", "m2")]
        for mine in ([(MAGLEV, "m1")], [(OWN6, "m1")], [(MAGLEV, "m1"), (OWN6, "m1")]):
            assert machine.find_self(addressed(*mine, *others), "Maglev") == "m1", f"by {mine}"
        both = addressed((MAGLEV, "m1"), (OWN6, "m1"), *others)
        assert machine.own_among(both, "endpoint") == (ip_address(MAGLEV), ip_address(OWN6))
        with pytest.raises(PlatformError, match=f"is: {MAGLEV}, {OWN6} are addresses of it; name one"):
            machine.find_self(addressed((MAGLEV, "m1"), (OWN6, "m3"), *others), "Maglev")
        with pytest.raises(PlatformError, match="which endpoint this machine is: none of them is an address of it"):
            machine.own_among([ip_address(STRANGER)], "endpoint")

    in_namespace(body)
