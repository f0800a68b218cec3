"""Takes what Ethernet has padded for the packet's own.

criterion: sound_packets
says: the packet's length, without what is behind it
"""

import maglev.packets


def parse_v4(data):
    return maglev.packets.parse_v4(data)._replace(data=data)
