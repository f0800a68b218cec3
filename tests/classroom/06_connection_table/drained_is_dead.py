"""Takes a backend that has no slots for one that is unhealthy: drained ones lose their flows.

criterion: an_unhealthy_backend_is_left
says: since it still serves the flows that it has; got
"""

import maglev.forwarding
from maglev.conntrack import ConnectionTable


class Forwarder(maglev.forwarding.Forwarder):
    def choose(self, flow, selects, service, now, continues=False):
        known = None if selects else self.connections.lookup(flow, now)
        return known if known in service.backends.members else super().choose(flow, True, service, now, continues)
