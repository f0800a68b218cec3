"""Counts two IP headers, and forgets the 4 bytes of GRE between them.

criterion: sees_it_in_gre
says: expected whether it lets its SYN through: True, got False
"""


def seen_at_endpoint(port):
    return f"ip proto 47 and ip[40:2] = {port}"
