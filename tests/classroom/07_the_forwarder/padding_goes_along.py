"""Takes all that is behind the Ethernet header for the packet, padding too.

criterion: packets_go_into_gre
says: expected the number of bytes inside, as the packet had
"""

from maglev.engine.socket import carry_out, run, send
from maglev.forwarding import Decision
from maglev.forwarding import Forwarder as Given


class Forwarder(Given):
    def decide(self, frame, now):
        decided = super().decide(frame, now)
        if decided.reason is not None:
            return decided
        outer = self._tunnel(decided.endpoint).encapsulate(frame[14:])
        return Decision(outer, decided.endpoint, decided.vip)
