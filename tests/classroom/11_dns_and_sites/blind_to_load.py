"""Gives all clients to the nearest site, however much it has to do.

criterion: clients_come_to_the_nearest_site_that_has_room
says: with twice as much to do as it can, are sent: {'new-york': 20}, got {'zurich': 20}
"""


def shares(nearest_first, loads, limits):
    return dict.fromkeys(nearest_first[:1], 1.0)
