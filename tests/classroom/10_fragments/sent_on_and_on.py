"""Sends a fragment to whom it takes for the owner, wherever it comes from.

criterion: nothing_goes_on_twice
says: expected None, for it has come from
"""

import maglev.forwarding
from maglev.fragments import FragmentTable


class Forwarder(maglev.forwarding.Forwarder):
    def goes_on_to(self, packet, now, came_from=b""):
        return super().goes_on_to(packet, now)
