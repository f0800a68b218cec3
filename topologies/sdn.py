"""The rack, whose router is an Open vSwitch with a Ryu application for a control plane.

    Wiring, names and addresses are those of the rack (topologies/rack.py):

        c1, c2  ---  r1  ---  m1 ... m3,  s1 ... s5
                     |
          Ryu: BGP with the Maglevs; flows and a select group a VIP for the switch

The group hashes the 5-tuple, and a bucket that goes takes nobody else's flows with it. The controller may die: the
switch goes on forwarding, and nothing moves when the controller comes back. `datapath` is `netdev` (a process),
`system` (the kernel's module) or `auto`, the kernel's where it has one.

    sudo mn --custom topologies/sdn.py --topo sdn,maglevs=4
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from lab import allowed
from lab.sdn_router import SdnRouter
from topologies.rack import Rack

DATAPATHS = ("auto", "netdev", "system")


class Sdn(Rack):
    """A rack with one software-defined router."""

    router_class = SdnRouter

    def build(
        self, maglevs: int = 3, endpoints: int = 5, clients: int = 2, datapath: str = "auto", bgp_password: str = ""
    ) -> None:
        """Wires the rack; ValueError for a datapath that there is not."""
        allowed.one_of("datapath", datapath, DATAPATHS)
        self.own = {"datapath": datapath}
        super().build(maglevs, endpoints, clients, bgp_password=bgp_password)


topos = {"sdn": Sdn}
