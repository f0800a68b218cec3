"""Never withdraws the VIP from its old shard: the flood's Maglevs go on having a part of it.

criterion: live_the_victim_moves_out
says: expected the entries in m2's connection table, which are b-echo's connections: 40, got
"""

from maglev.isolation import in_common
from maglev.limits import Budget
from maglev.moving import next_place as given
from maglev.shares import Shares


def next_place(now, to):
    return given(now, to) if now.shard != to else None
