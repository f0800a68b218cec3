"""Has room for everybody: a flood from one address fills the whole table.

criterion: live_one_source_has_its_share
says: expected the entries after the flood, all c1's: 100, got 400
"""

import maglev.shares
from maglev.isolation import in_common
from maglev.limits import Budget
from maglev.moving import next_place


class Shares(maglev.shares.Shares):
    def has_room(self, source, epoch):
        return True
