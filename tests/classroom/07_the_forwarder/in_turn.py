"""Deals connections out in turn, and remembers them: all is well until another Maglev has to take over.

criterion: it_carries_the_demo
says: expected the number of connections that broke: 0, got
"""

from itertools import count

from maglev.engine.socket import carry_out, run, send
from maglev.forwarding import Forwarder as Given


class Forwarder(Given):
    turns = count()

    def choose(self, flow, selects, service, now, continues=False):
        known = None if selects else self.connections.lookup(flow, now)
        members = service.backends.members
        endpoint = known or members[next(self.turns) % len(members)]
        self.connections.record(flow, endpoint, now)
        return endpoint
