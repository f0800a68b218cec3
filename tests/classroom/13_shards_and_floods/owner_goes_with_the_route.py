"""Gives the VIP to its new shard in the same step in which that begins to announce it.

criterion: fragments_meet
says: routes change while fragments change owners
"""

import maglev.moving
from maglev.moving import Place


def next_place(now, to):
    place = maglev.moving.next_place(now, to)
    if place is not None and to not in now.announced_by and to in place.announced_by:
        return Place(to, (now.shard, *now.also_announced_by), place.also_served_by)
    return place
