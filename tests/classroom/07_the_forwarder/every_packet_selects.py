"""Never asks what was chosen before: `selects` is true for every packet.

criterion: connections_stay
says: as before
"""

from maglev.engine.socket import carry_out, run, send
from maglev.forwarding import Forwarder as Given


class Forwarder(Given):
    def choose(self, flow, selects, service, now, continues=False):
        return super().choose(flow, True, service, now)
