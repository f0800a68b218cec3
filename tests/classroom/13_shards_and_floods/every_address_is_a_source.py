"""Takes each IPv6 address for a source: whoever has a /64 has 2^64 shares.

criterion: a_prefix_is_one_source
says: expected whether source 4 has room for one more of 2: False, got True
"""

import maglev.shares


class Shares(maglev.shares.Shares):
    def _row(self, source):
        return self._rows[source]
