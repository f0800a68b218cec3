"""Goes there in one step: some Maglevs have not taken it up yet, and routers hear of it one by one.

criterion: nobody_is_sent_what_it_does_not_serve
says: where nobody serves it
"""

from maglev.moving import Place


def next_place(now, to):
    there = Place(to, (), ())
    return None if now == there else there
