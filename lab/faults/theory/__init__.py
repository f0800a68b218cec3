"""Why a connection had to break: theory, from what was done to a lab and when (Maglev §3.3). Pure.

A connection lives as long as its packets reach its endpoint. Two things protect it: the connection table of the Maglev
that it crosses covers a change of *endpoints*, consistent hashing covers a change of *Maglevs*. So it breaks

    if its endpoint dies                                            nobody else knows the connection
    if its endpoint is found unhealthy, or cannot be reached        its packets go to another, which knows nothing of it
    if it comes to a Maglev that has not seen it while that one's   both at once: only those connections whose slot of
      lookup table has another endpoint in its slot                  the table has changed, a bounded share
    if its client loses its link, or if it is silent for so long    TCP, and whoever waits for it, give up
      that it counts as stalled

and it never comes about if it is opened to an endpoint, or by a Maglev, that is no more and is not known to be.

"Has not seen it" is any Maglev after a change of the routers' next hops, and one that has lost its table. While a
change is under way Maglevs differ in what they know, so theory takes every set of endpoints that one of them may
believe in. What it says of a connection is that it *had to* break, or that it *may* have: which Maglev a router sends a
flow to is the router's secret.

`happened` has the faults, `world` those whom they concern, `reasons` why, `judged` the verdict.
"""

from .happened import Spell, spells
from .judged import explained, only_who_had_to
from .reasons import Doom, dooms
from .world import Life, World

__all__ = ["Doom", "Life", "Spell", "World", "dooms", "explained", "only_who_had_to", "spells"]
