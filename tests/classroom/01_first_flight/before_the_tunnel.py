"""Looks for TCP, which is inside GRE: tcpdump does not look there by itself.

criterion: sees_it_in_gre
says: expected whether it lets its SYN through: True, got False
"""


def seen_at_endpoint(port):
    return f"tcp src port {port}"
