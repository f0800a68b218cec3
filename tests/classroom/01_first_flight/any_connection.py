"""Asks for the way to the VIP, and not for that of one connection.

criterion: follows_it_to_the_maglev
says: expected the Maglev that it shows: {
"""

from lab.by_hand import routes


def maglev_of(port):
    return "ip route get 192.0.2.1 from 10.0.1.2 iif r1-eth0"
