"""Looks for the VIP at the place of the inner source address, one word too early.

criterion: only_maglevs_and_only_vips
says: expected the packet to be let in, got Discard(NOT_VIP)
"""

import maglev.engine.decapsulation
from maglev.errors import Discard, Reason
from maglev.gre import payload_of


class Gate(maglev.engine.decapsulation.Gate):
    def admit(self, received):
        inner = payload_of(received.gre)
        if received.source not in self._admitted.maglevs:
            raise Discard(Reason.NOT_FROM_MAGLEV)
        if (inner[12:16] if inner[0] >> 4 == 4 else inner[8:24]) not in self._admitted.addresses:
            raise Discard(Reason.NOT_VIP)
        return inner
