"""Has no answer to a packet that the gate keeps out: the endpoint ends with it.

criterion: carries_and_counts
says: Discard at line
"""

import os
import select

from maglev.engine.decapsulation import Gate


def pump_once(receivers, device, gate):
    for receiver in select.select(receivers, [], [])[0]:
        try:
            while True:
                os.write(device, gate.admit(receiver.receive()))
        except BlockingIOError:
            pass
