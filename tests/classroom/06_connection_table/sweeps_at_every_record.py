"""Goes through all entries at every record, in search of those that have expired.

criterion: many_flows_in_time
says: it was not done after 8 s
"""

import maglev.conntrack


class ConnectionTable(maglev.conntrack.ConnectionTable):
    def record(self, flow, backend, now):
        self._advance(now)
        for other in [other for other, entry in self._entries.items() if self._has_expired(entry[1])]:
            del self._entries[other]
        return super().record(flow, backend, now)
