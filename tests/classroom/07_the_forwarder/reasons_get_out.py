"""Lets `Discard` out of `decide`: whatever is malformed ends the loop.

criterion: whatever_comes
says: expected a Decision, got Discard: not_ip
"""

from maglev.engine.socket import carry_out, run, send
from maglev.errors import Discard
from maglev.forwarding import Forwarder as Given


class Forwarder(Given):
    def decide(self, frame, now):
        decided = super().decide(frame, now)
        if decided.reason is not None and not decided.answer:
            raise Discard(decided.reason)
        return decided
