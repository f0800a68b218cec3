"""Takes a SYN that answers a SYN for an opening.

criterion: openings
says: expected whether SA opens a connection: False, got True
"""

import maglev.packets


def flow_of(packet):
    flow, _ = maglev.packets.flow_of(packet)
    opens = flow.protocol == 6 and packet.data[packet.header_bytes + 13] & 2 != 0
    return flow, opens
