"""Never forgets: what was recorded once is found for ever.

criterion: forgets_the_idle
says: expected the backend: None, got 's1'
"""

import maglev.conntrack


class ConnectionTable(maglev.conntrack.ConnectionTable):
    def lookup(self, flow, now, within_s=None):
        entry = self._entries.get(flow)
        return entry and entry[0]
