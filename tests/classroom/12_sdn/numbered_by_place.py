"""Numbers buckets by their place in the list: when one goes, others get other numbers, and their flows move.

criterion: others_stay_where_they_are
says: flows move that were not
"""

from lab.sdn.rules import Bucket, Group


def group(number, ports, hops):
    ordered = sorted(hops, key=lambda hop: hop.port)
    return Group(number, tuple(Bucket(n, hop.port, ports[hop.port].mac, hop.mac) for n, hop in enumerate(ordered, 1)))
