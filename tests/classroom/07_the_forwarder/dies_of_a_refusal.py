"""Lets out what the kernel says when it does not take a packet.

criterion: what_cannot_be_sent_is_counted
says: expected too_big to be counted, got OSError
"""

from maglev.engine.socket import run, way_back
from maglev.errors import Reason
from maglev.forwarding import Decision, Forwarder


def carry_out(packets, decision, frame, next_hop, count):
    for each in decision.all():
        if each.reason is None:
            each = send(packets, each, next_hop(each.endpoint))
        count(each)
        if each.answer:
            packets.send(way_back(frame, each.answer) + each.answer)


def send(packets, decision, ethernet):
    if ethernet is None:
        return Decision(reason=Reason.NO_NEXT_HOP)
    packets.send(ethernet + decision.packet)
    return decision
