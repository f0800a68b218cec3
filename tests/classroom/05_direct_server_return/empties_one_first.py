"""Empties a receiver before it looks at the next: a stream of one family keeps the other waiting.

criterion: nobody_waits_for_the_other
says: packets before the single one, got 640
"""

import os
import select

from maglev.engine.decapsulation import Gate
from maglev.errors import Discard


def pump_once(receivers, device, gate):
    for receiver in select.select(receivers, [], [])[0]:
        while True:
            try:
                os.write(device, gate.admit(receiver.receive()))
            except BlockingIOError:
                break
            except Discard as discard:
                gate.reasons[discard.reason] += 1
