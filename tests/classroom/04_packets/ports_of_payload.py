"""Reads ports in every fragment: of a later one that is payload.

criterion: later_fragments_have_no_ports
says: expected a flow without ports
"""

import maglev.packets


def flow_of(packet):
    flow, opens = maglev.packets.flow_of(packet)
    ports = packet.data[packet.header_bytes : packet.header_bytes + 4]
    source_port, destination_port = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
    return flow._replace(source_port=source_port, destination_port=destination_port), opens
