"""The rack, whose router spreads flows by resilient next-hop groups.

    Wiring, names and addresses are those of the rack (topologies/rack.py):

        c1, c2  ---  r1  ---  m1 ... m3,  s1 ... s5

r1 learns VIPs by BGP as ever, but BIRD writes them into a table of their own, and a daemon makes of each a route over a
next-hop group with a fixed number of buckets. When a Maglev comes or goes, only the buckets move that must: 1/N of the
flows, where the plain hash threshold moves up to half of them. `ecmp="threshold"` gives that one, for comparison;
`idle_timer_s` spares buckets that have seen a packet so lately.

    sudo mn --custom topologies/resilient.py --topo resilient,buckets=64
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.getcwd())  # `mn --custom` runs this file's text, not the file: from the project's directory

from lab import allowed
from lab.nodes import MOST_PATHS
from topologies.rack import Rack

ECMP = ("resilient", "threshold")
LONGEST_IDLE_S = 86400
MOST_BUCKETS = 65535  # struct nhmsg's attribute is 16 bits wide


class Resilient(Rack):
    """A rack whose router keeps flows where they are."""

    def build(
        self,
        maglevs: int = 3,
        endpoints: int = 5,
        clients: int = 2,
        ecmp: str = "resilient",
        buckets: int = 128,
        idle_timer_s: float = 0.0,
    ) -> None:
        """Wires the rack; ValueError for what the router could not do."""
        allowed.one_of("ecmp", ecmp, ECMP)
        allowed.some(MOST_PATHS, maglevs=maglevs)
        allowed.whole("buckets", buckets, maglevs, MOST_BUCKETS)
        if idle_timer_s != 0:
            allowed.amount("idle_timer_s", idle_timer_s, LONGEST_IDLE_S)
        self.own = {"ecmp": ecmp, "buckets": buckets, "idle_timer_s": idle_timer_s}
        super().build(maglevs, endpoints, clients)


topos = {"resilient": Resilient}
