"""Holds the VIPs, and leaves ARP as it is.

criterion: silent_about_them
says: expected whom the first answer is about: '10.2.1.2', got '192.0.2.1'
"""

import contextlib

import maglev.engine.held_vips


class HeldVips(maglev.engine.held_vips.HeldVips):
    def __init__(self, undo):
        with contextlib.ExitStack() as at_once:
            super().__init__(at_once)
