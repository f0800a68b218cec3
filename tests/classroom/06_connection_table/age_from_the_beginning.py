"""Counts an entry's age from its record: a lookup is no use.

criterion: use_keeps_alive
says: expected the backend: 's1', got None
"""

import maglev.conntrack


class ConnectionTable(maglev.conntrack.ConnectionTable):
    def lookup(self, flow, now, within_s=None):
        return self.peek(flow, now, within_s)
