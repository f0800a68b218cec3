"""Flow keys: their 37 bytes, the hash that all Maglevs agree on, and addresses of both families in one form."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maglev.flow import Flow, pack_address, selection_hash, unpack_address

CLIENT, VIP = pack_address("203.0.113.7"), pack_address("192.0.2.1")
numbers16 = st.integers(0, 0xFFFF)
flows = st.builds(
    Flow,
    st.ip_addresses().map(pack_address),
    st.ip_addresses().map(pack_address),
    st.integers(0, 255),
    numbers16,
    numbers16,
)


def crc32_bit_by_bit(data):
    """CRC-32 as IEEE 802.3 §3.2.9 defines it, reflected polynomial 0xEDB88320, without a table."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_a_key_is_addresses_protocol_and_ports_in_network_order():
    key = Flow(CLIENT, VIP, 6, 0x1234, 80).key()
    expected = (
        bytes.fromhex("00000000000000000000ffff cb007107")  # ::ffff:203.0.113.7
        + bytes.fromhex("00000000000000000000ffff c0000201")  # ::ffff:192.0.2.1
        + bytes.fromhex("06 1234 0050")
    )
    assert key == expected, f"the key should have been {expected.hex()}, but was {key.hex()}"


@given(flows, flows)
def test_different_flows_have_different_keys_of_37_bytes(one, other):
    assert len(one.key()) == 37, f"a key should have 37 bytes, but {one} has {len(one.key())}"
    assert (one == other) == (one.key() == other.key()), f"{one} and {other} should have a key each"


@given(flows)
def test_the_hash_is_the_crc_of_the_key(flow):
    expected = crc32_bit_by_bit(flow.key())
    assert selection_hash(flow) == expected, f"{flow} should hash to {expected}, but hashes to {selection_hash(flow)}"


def test_the_hash_stays_what_it_was_in_every_release():
    """A Maglev of the next release must agree with those that still run this one."""
    found = selection_hash(Flow(CLIENT, VIP, 6, 40000, 80))
    assert found == 0x5FB5C1B2, f"the hash should have been 0x5fb5c1b2, but was {found:#x}"


def test_the_flows_of_one_client_meet_all_slots_alike():
    """20,000 flows over 20 slots are 1,000 a slot; seven standard deviations are 7 * sqrt(1000 * 0.95) = 216."""
    slots = Counter(selection_hash(Flow(CLIENT, VIP, 6, port, 80)) % 65537 % 20 for port in range(40000, 60000))
    assert len(slots) == 20, f"all 20 slots should have been met, but only {sorted(slots)} were"
    assert all(abs(met - 1000) < 216 for met in slots.values()), f"each should be met 784 to 1,216 times: {slots}"


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_held_in_its_mapped_form(address):
    packed = pack_address(address)
    assert packed == IPv6Address(f"::ffff:{address}").packed, f"{address} should be held as ::ffff:{address}"
    assert unpack_address(packed) == address, f"{address} came back as {unpack_address(packed)}"
    assert pack_address(str(address)) == packed, f"{address} as text should be held alike"


@given(st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None))
def test_an_ipv6_address_comes_back_as_it_was(address):
    assert unpack_address(pack_address(address)) == address


@pytest.mark.parametrize("text", ["", "10.1.1", "10.1.1.256", "www.example.org", "10.1.1.1/24"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"does not appear to be"):
        pack_address(text)


def test_a_flow_can_be_read_by_a_person():
    assert str(Flow(CLIENT, VIP, 6, 40000, 80)) == "203.0.113.7:40000 -> 192.0.2.1:80 proto 6"
    assert isinstance(unpack_address(CLIENT), IPv4Address)
