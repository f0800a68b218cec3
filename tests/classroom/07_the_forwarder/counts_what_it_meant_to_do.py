"""Counts before it sends: what the kernel refuses is counted as forwarded.

criterion: what_cannot_be_sent_is_counted
says: expected what was counted: ['no_next_hop'], got [None]
"""

import maglev.engine.socket as given
from maglev.engine.socket import run, send
from maglev.forwarding import Forwarder


def carry_out(packets, decision, frame, next_hop, count):
    for each in decision.all():
        count(each)
    given.carry_out(packets, decision, frame, next_hop, lambda done: None)
