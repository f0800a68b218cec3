"""Keeps every fragment where it comes: Maglevs that never see the first hold the others in vain.

criterion: the_60_kb_datagram_arrives
says: expected the number of
"""

import maglev.forwarding
from maglev.fragments import FragmentTable


class Forwarder(maglev.forwarding.Forwarder):
    def goes_on_to(self, packet, now, came_from=b""):
        return None
