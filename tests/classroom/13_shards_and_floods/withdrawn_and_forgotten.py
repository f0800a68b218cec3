"""Withdraws from the old shard and has it forget the VIP in one step, while packets are still on their way to it.

criterion: nobody_is_sent_what_it_does_not_serve
says: where nobody serves it
"""

import maglev.moving
from maglev.moving import Place


def next_place(now, to):
    place = maglev.moving.next_place(now, to)
    return Place(to, (), ()) if place is not None and place.announced_by == (to,) else place
