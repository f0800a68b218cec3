"""Sums the first 20 bytes of a header, whatever its length: the checksum is over the wrong bytes.

criterion: sound_packets
says: Discard
"""

import maglev.packets
from maglev.errors import Discard, Reason


def parse_v4(data):
    packet = maglev.packets.parse_v4(data)
    if maglev.packets.internet_sum(data[:20]) != 0:
        raise Discard(Reason.BAD_IP_CHECKSUM)
    return packet
