"""Leaves buckets in the order in which next hops were announced: the same group looks like another one.

criterion: a_bucket_for_each_hop
says: expected buckets in the order of their numbers
"""

from lab.sdn.rules import Bucket, Group


def group(number, ports, hops):
    return Group(number, tuple(Bucket(hop.port, hop.port, ports[hop.port].mac, hop.mac) for hop in hops))
