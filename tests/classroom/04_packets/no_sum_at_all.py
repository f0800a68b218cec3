"""Believes every header, whatever its checksum.

criterion: malformed_packets
says: expected it to be refused, BAD_IP_CHECKSUM, got Packet(
"""

import maglev.packets
from maglev.errors import Discard, Reason


def parse_v4(data):
    try:
        return maglev.packets.parse_v4(data)
    except Discard as discard:
        if discard.reason != Reason.BAD_IP_CHECKSUM:
            raise
    mended = data[:10] + bytes(2) + data[12:]
    size = (data[0] & 15) * 4
    checksum = -maglev.packets.internet_sum(mended[:size]) % 0xFFFF
    return maglev.packets.parse_v4(data[:10] + checksum.to_bytes(2, "big") + data[12:])
