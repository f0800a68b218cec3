"""Does not say how the group chooses: Open vSwitch deals slots of a table out anew at each change.

criterion: only_the_flows_of_a_dead_maglev_move
says: flows moved that were not m2's: 0, got
"""

from lab.sdn.wire import action


def group_mod(datapath, command, group):
    parser, protocol = datapath.ofproto_parser, datapath.ofproto
    buckets = [
        parser.OFPBucket(bucket_id=bucket.number, actions=[action(parser, each) for each in bucket.actions])
        for bucket in group.buckets
    ]
    return parser.OFPGroupMod(datapath, command, protocol.OFPGT_SELECT, group.number, buckets=buckets)
