"""Keeps a flow on its backend, whether that lives or not.

criterion: an_unhealthy_backend_is_left
says: since its own is unhealthy; got
"""

import maglev.forwarding
from maglev.conntrack import ConnectionTable


class Forwarder(maglev.forwarding.Forwarder):
    def choose(self, flow, selects, service, now, continues=False):
        known = None if selects else self.connections.lookup(flow, now)
        return known or super().choose(flow, True, service, now, continues)
