"""Answers no question for the VIP, and asks its own in the VIP's name.

criterion: silent_about_them
says: expected who asks: '10.2.1.2', got '192.0.2.1'
"""

import maglev.engine.held_vips
from maglev.engine.machine import set_sysctl


class HeldVips(maglev.engine.held_vips.HeldVips):
    def __init__(self, undo):
        super().__init__(undo)
        set_sysctl("all", "arp_announce", 0, undo)
