"""Leaves a fragment's offset in units of eight bytes.

criterion: fragments_are_known
says: expected identification, offset in bytes, more, protocol
"""

import maglev.packets


def parse_v4(data):
    packet = maglev.packets.parse_v4(data)
    part = packet.fragment
    return packet._replace(fragment=part and part._replace(offset_bytes=part.offset_bytes // 8))
