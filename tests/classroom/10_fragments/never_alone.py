"""Takes it for granted that there are other Maglevs.

criterion: all_agree_on_the_owner
says: AttributeError
"""

import maglev.forwarding
from maglev.flow import selection_hash
from maglev.fragments import FragmentTable
from maglev.packets import three_tuple


class Forwarder(maglev.forwarding.Forwarder):
    def goes_on_to(self, packet, now, came_from=b""):
        if came_from:
            return None
        owner = self.vips.owners_at(packet.destination).select(selection_hash(three_tuple(packet)))
        return None if owner in self._own.values() else owner
