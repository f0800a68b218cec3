"""Remembers a packet for ever: another that has its identification follows it.

criterion: packets_are_forgotten
says: expected the endpoint: None, got 's1'
"""

import maglev.fragments


class FragmentTable(maglev.fragments.FragmentTable):
    def _expire(self, now):
        pass
