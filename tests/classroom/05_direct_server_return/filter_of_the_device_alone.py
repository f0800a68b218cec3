"""Switches the filter off at the device alone; what is set for all interfaces outweighs it.

criterion: answers_go_another_way
says: expected an answer on the wire, but none came
"""

import maglev.engine.decapsulation
from maglev.engine.decapsulation import Gate, pump_once
from maglev.engine.held_vips import HeldVips
from maglev.engine.machine import set_sysctl


def make_tun_device(undo):
    device = maglev.engine.decapsulation.make_tun_device(undo)
    set_sysctl("all", "rp_filter", 1, undo)
    return device
