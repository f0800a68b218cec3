"""Takes the identification alone for the key.

criterion: packets_have_keys_of_their_own
says: expected the number of different keys: 4, got 2
"""


def key_of(packet):
    return packet.fragment.identification
