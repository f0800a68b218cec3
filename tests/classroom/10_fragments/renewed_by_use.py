"""Has a packet's time run from when it was last asked for.

criterion: packets_are_forgotten
says: at 2.1 s asked for packet 1
"""

import maglev.fragments


class FragmentTable(maglev.fragments.FragmentTable):
    def choice(self, key, now):
        found = super().choice(key, now)
        if found is not None:
            self._entries[key].since = now
        return found
