"""Takes the first prefix that covers an address, in the order in which they were given.

criterion: the_longest_prefix_counts
says: and its prefix length
"""

from maglev.geo import Located


class Locations:
    def __init__(self, places):
        self.places = dict(places)

    def of(self, address):
        for network, place in self.places.items():
            if address in network:
                return Located(place, network.prefixlen)
        return None
