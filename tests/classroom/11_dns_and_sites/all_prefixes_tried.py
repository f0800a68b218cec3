"""Tries all prefixes for each address.

criterion: many_prefixes_in_time
says: it was not done after 6 s
"""

from maglev.geo import Located


class Locations:
    def __init__(self, places):
        self.places = sorted(places.items(), key=lambda each: -each[0].prefixlen)

    def of(self, address):
        covering = [(network, place) for network, place in self.places if address in network]
        return Located(covering[0][1], covering[0][0].prefixlen) if covering else None
