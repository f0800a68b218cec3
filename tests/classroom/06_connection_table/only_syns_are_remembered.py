"""Remembers what a SYN has selected, and nothing else.

criterion: others_ask_the_table
says: since it went there before: was it remembered?
"""

import maglev.forwarding
from maglev.conntrack import ConnectionTable
from maglev.flow import selection_hash


class Forwarder(maglev.forwarding.Forwarder):
    def choose(self, flow, selects, service, now, continues=False):
        if selects:
            return super().choose(flow, selects, service, now, continues)
        known = self.connections.lookup(flow, now)
        return known if known in service.backends.usable else service.backends.select(selection_hash(flow))
