"""Peeks by looking up, which keeps the entry alive.

criterion: peeking_is_no_use
says: at 11 s peeked at c1:40001
"""

import maglev.conntrack


class ConnectionTable(maglev.conntrack.ConnectionTable):
    def peek(self, flow, now, within_s=None):
        return self.lookup(flow, now, within_s)
