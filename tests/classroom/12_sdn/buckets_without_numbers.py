"""Leaves the buckets' numbers to Ryu, which gives all the same.

criterion: what_open_vswitch_reads
says: Open vSwitch refuses the message: OFPGMFC_BAD_BUCKET
"""

from lab.sdn.wire import HashOf5Tuple, action


def group_mod(datapath, command, group):
    parser, protocol = datapath.ofproto_parser, datapath.ofproto
    buckets = [parser.OFPBucket(actions=[action(parser, each) for each in bucket.actions]) for bucket in group.buckets]
    kind = protocol.OFPGT_SELECT
    return parser.OFPGroupMod(datapath, command, kind, group.number, buckets=buckets, properties=[HashOf5Tuple()])
