"""Takes every error for a passing one: when the interface is gone, it receives nothing, very fast, for ever.

criterion: the_loop_outlives_the_interface
says: expected the loop to leave, got
"""

from time import monotonic

from maglev.engine.socket import carry_out, send
from maglev.forwarding import Forwarder


def run(packets, forwarder, next_hop, statistics, goes_on=lambda: True):
    while True:
        try:
            frame = packets.recv(65536)
        except BlockingIOError:
            if not goes_on():
                return
            continue
        except OSError:
            continue
        carry_out(packets, forwarder.decide(frame, monotonic()), frame, next_hop, statistics.count)
