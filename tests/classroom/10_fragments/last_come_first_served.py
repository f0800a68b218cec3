"""Releases those that waited in the wrong order.

criterion: who_came_too_early_waits
says: expected the fragments that waited, as they came: [3, 1, 2], got [2, 1, 3]
"""

import maglev.fragments


class FragmentTable(maglev.fragments.FragmentTable):
    def first(self, key, choice, now):
        return super().first(key, choice, now)[::-1]
