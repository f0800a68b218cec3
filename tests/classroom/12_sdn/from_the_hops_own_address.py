"""Mixes up whose link address is the source.

criterion: a_bucket_for_each_hop
says: expected port, source and destination of the buckets
"""

from lab.sdn.rules import Bucket, Group


def group(number, ports, hops):
    buckets = (Bucket(hop.port, hop.port, hop.mac, ports[hop.port].mac) for hop in hops)
    return Group(number, tuple(sorted(buckets, key=lambda bucket: bucket.number)))
