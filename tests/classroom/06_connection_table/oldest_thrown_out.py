"""Makes room in a full table by throwing out the entry that was used longest ago, as a cache would.

criterion: a_full_table_keeps_what_it_has
says: expected True for what is remembered, False for want of room: False, got True
"""

import maglev.conntrack


class ConnectionTable(maglev.conntrack.ConnectionTable):
    def record(self, flow, backend, now):
        if not super().record(flow, backend, now):
            self._entries.popitem(last=False)
            return super().record(flow, backend, now)
        return True
