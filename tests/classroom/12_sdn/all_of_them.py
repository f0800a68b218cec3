"""Makes a group that sends each packet to all its buckets.

criterion: what_open_vswitch_reads
says: expected the group's type: ['select'], got ['all']
"""

from lab.sdn.wire import action


def group_mod(datapath, command, group):
    parser, protocol = datapath.ofproto_parser, datapath.ofproto
    buckets = [
        parser.OFPBucket(bucket_id=bucket.number, actions=[action(parser, each) for each in bucket.actions])
        for bucket in group.buckets
    ]
    return parser.OFPGroupMod(datapath, command, protocol.OFPGT_ALL, group.number, buckets=buckets)
