"""Puts the sum of the whole outer packet into its header: the checksum is over the wrong bytes.

criterion: outer_headers
says: expected chksum of the outer IP header
"""

import maglev.gre
from maglev.packets import internet_sum


class Tunnel(maglev.gre.Tunnel):
    def encapsulate(self, inner, flow_hash=0, redirected=False):
        outer = super().encapsulate(inner, flow_hash, redirected)
        summed = outer[:10] + bytes(2) + outer[12:]
        checksum = -internet_sum(summed + bytes(len(summed) % 2)) % 0xFFFF
        return outer[:10] + checksum.to_bytes(2, "big") + outer[12:]
