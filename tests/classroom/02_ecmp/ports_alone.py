"""Takes the ports for layer 4, and forgets that UDP has the same.

criterion: what_is_hashed
says: expected the fields that count in layer 4
"""


def hash_key(flow, layer=4):
    if layer not in (3, 4):
        raise ValueError(layer)
    addresses = flow.source + flow.destination
    ports = flow.source_port.to_bytes(2, "big") + flow.destination_port.to_bytes(2, "big")
    return addresses + ports if layer == 4 else addresses
