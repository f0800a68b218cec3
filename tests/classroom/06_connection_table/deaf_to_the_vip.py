"""Lets every VIP's connections be idle for as long as the table does, whatever the VIP says.

criterion: others_ask_the_table
says: since it was idle for longer than its VIP allows
"""

from dataclasses import replace

import maglev.forwarding
from maglev.conntrack import ConnectionTable


class Forwarder(maglev.forwarding.Forwarder):
    def choose(self, flow, selects, service, now, continues=False):
        return super().choose(flow, selects, replace(service, idle_timeout_s=None), now, continues)
