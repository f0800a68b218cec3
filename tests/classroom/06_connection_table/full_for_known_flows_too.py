"""Refuses everything when the table is full, a new backend of a flow that has its entry too.

criterion: a_full_table_keeps_what_it_has
says: at 5 s recorded s3 for c1:40002
"""

import maglev.conntrack


class ConnectionTable(maglev.conntrack.ConnectionTable):
    def record(self, flow, backend, now):
        self._advance(now)
        self._expire()
        if len(self) >= self.capacity:
            self.overflows += 1
            return False
        return super().record(flow, backend, now)
