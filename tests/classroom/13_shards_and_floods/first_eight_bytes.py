"""Takes the first 64 bits of any address, though all IPv4 addresses begin alike: they become one source.

criterion: a_prefix_is_one_source
says: expected whether source 3 has room for one more of 2: True, got False
"""

import maglev.shares


class Shares(maglev.shares.Shares):
    def _row(self, source):
        return self._rows[source[:8]]
