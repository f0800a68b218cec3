"""Hashes the 5-tuple: the first fragment goes to one Maglev, and all others to another.

criterion: all_agree_on_the_owner
says: expected how many owners one packet has: 1, got
"""

import maglev.forwarding
from maglev.flow import selection_hash
from maglev.fragments import FragmentTable
from maglev.packets import flow_of


class Forwarder(maglev.forwarding.Forwarder):
    def goes_on_to(self, packet, now, came_from=b""):
        owner = (
            None if came_from else self.vips.owners_at(packet.destination).select(selection_hash(flow_of(packet)[0]))
        )
        return None if owner in self._own.values() else owner
