"""Asks for packets without end, and takes the processor from everybody else.

criterion: the_loop_waits
says: expected 10 receives to wait
"""

import socket
from time import monotonic

from maglev.engine.socket import carry_out, send
from maglev.forwarding import Forwarder


def run(packets, forwarder, next_hop, statistics, goes_on=lambda: True):
    while True:
        try:
            frame = packets.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if not goes_on():
                return
            continue
        carry_out(packets, forwarder.decide(frame, monotonic()), frame, next_hop, statistics.count)
