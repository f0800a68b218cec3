"""Finds the port, and does not ask whose it is.

criterion: sees_it_in_gre
says: expected whether it lets a datagram from the same port through: False, got True
"""


def seen_at_endpoint(port):
    return f"ip proto 47 and ip[44:2] = {port}"
