"""Has room for 1,500 bytes: the Ethernet header is not in the MTU.

criterion: the_loop_forwards
says: expected the ports of those that left, in order
"""

from time import monotonic

from maglev.engine.socket import carry_out, send
from maglev.forwarding import Forwarder


def run(packets, forwarder, next_hop, statistics, goes_on=lambda: True):
    while True:
        try:
            frame = packets.recv(1500)
        except BlockingIOError:
            if not goes_on():
                return
            continue
        carry_out(packets, forwarder.decide(frame, monotonic()), frame, next_hop, statistics.count)
