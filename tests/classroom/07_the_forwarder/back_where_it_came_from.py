"""Sends everything back to the router that it has come from, instead of to the next hop of its endpoint.

criterion: frames_on_the_wire
says: expected the Ethernet header
"""

from maglev.engine.socket import run, way_back
from maglev.forwarding import Forwarder


def carry_out(packets, decision, frame, next_hop, count):
    for each in decision.all():
        if each.reason is None:
            packets.send(way_back(frame, each.packet) + each.packet)
        count(each)
        if each.answer:
            packets.send(way_back(frame, each.answer) + each.answer)
