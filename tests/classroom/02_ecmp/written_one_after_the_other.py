"""Writes the numbers one after the other, so that nobody knows where one ends.

criterion: what_is_hashed
says: expected whether these two differ in layer 4: True, got False
"""


def hash_key(flow, layer=4):
    if layer not in (3, 4):
        raise ValueError(layer)
    numbers = f"{flow.protocol}{flow.source_port}{flow.destination_port}".encode()
    return flow.source + flow.destination + (numbers if layer == 4 else b"")
