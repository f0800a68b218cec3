"""Asks the table for a SYN as for any packet.

criterion: a_syn_always_selects
says: since a SYN selects; got
"""

import maglev.forwarding
from maglev.conntrack import ConnectionTable


class Forwarder(maglev.forwarding.Forwarder):
    def choose(self, flow, selects, service, now, continues=False):
        return super().choose(flow, False, service, now, continues)
