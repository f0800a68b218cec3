"""Counts an entry that is used again once more: a long connection fills its client's share alone.

criterion: a_long_story
says: has room for one more of 5: True, got False
"""

import maglev.shares


class Shares(maglev.shares.Shares):
    def use(self, source, last, epoch):
        self.add(source, epoch)
