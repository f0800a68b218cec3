"""What keeps a machine from answering as the VIP: on paper, and as this kernel's settings are read."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address

import pytest
from namespaces import MAGLEV, ip

from maglev.direct_return import Interface, Machine, Settings, Trouble, troubles_of
from maglev.engine import survey

VIPS = [ip_address("192.0.2.1"), ip_address("2001:db8::1")]
OWN, OWN6 = ip_address("10.2.1.2"), ip_address("fd00:2:1::2")
SILENT = Settings(0, 1, 2)
PLAIN = Settings()


def machine(of_all=SILENT, wire=PLAIN, tunnel=PLAIN, mtu=1600, held=VIPS):
    interfaces = {
        "lo": Interface(65536, frozenset({ip_address("127.0.0.1"), *held})),
        "s1-eth0": Interface(mtu, frozenset({OWN, OWN6}), wire),
        "maglev0": Interface(1500, frozenset(), tunnel),
        "other": Interface(576, frozenset(), Settings(1, 0, 0)),
    }
    return Machine(interfaces, of_all)


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (machine(), set()),
        (machine(of_all=PLAIN, wire=SILENT), set()),
        (machine(held=VIPS[:1]), {Trouble.NO_VIP}),
        (machine(of_all=Settings(0, 1, 0)), {Trouble.ARP}),
        (machine(of_all=Settings(0, 0, 2)), {Trouble.ARP}),
        (machine(of_all=Settings(0, 0, 2), wire=Settings(1, 2, 0)), set()),
        (machine(tunnel=Settings(1)), {Trouble.REVERSE_PATH}),
        (machine(of_all=Settings(1, 1, 2)), {Trouble.REVERSE_PATH}),
        (machine(of_all=Settings(1, 1, 2), tunnel=Settings(2)), set()),
        (machine(mtu=1523), {Trouble.MTU}),
        (machine(mtu=1524), set()),
        (machine(of_all=Settings(1), mtu=1500, held=[]), set(Trouble)),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else(subject, expected):
    assert troubles_of(subject, VIPS, OWN) == expected


def test_gre_over_ipv6_takes_more_room():
    assert troubles_of(machine(mtu=1543), VIPS, OWN6) == {Trouble.MTU}
    assert troubles_of(machine(mtu=1544), VIPS, OWN6) == set()


def test_a_machine_is_read_as_its_kernel_is_set(in_namespace):
    def body(wires):
        ip("link set lo up")
        ip("address add 192.0.2.1/32 dev lo")
        ip(f"link set {wires.maglev} mtu 1510")
        for name, value in (("all.arp_announce", 2), (f"{wires.maglev}.arp_ignore", 1), ("all.rp_filter", 2)):
            subprocess.run(["sysctl", "-qw", f"net.ipv4.conf.{name}={value}"], check=True)
        found = survey.machine()
        assert (found.all.arp_announce, found.all.rp_filter) == (2, 2)
        wire = found.interfaces[wires.maglev]
        assert (wire.mtu_bytes, wire.settings.arp_ignore, wire.settings.arp_announce) == (1510, 1, 0)
        assert ip_address(MAGLEV) in wire.addresses
        assert VIPS[0] in found.interfaces["lo"].addresses

    in_namespace(body)
