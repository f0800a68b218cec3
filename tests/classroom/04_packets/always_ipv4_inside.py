"""Says that IPv4 is inside, whatever is.

criterion: gre_headers
says: expected the EtherType of what is carried: 34525, got 2048
"""

import maglev.gre


class Tunnel(maglev.gre.Tunnel):
    def encapsulate(self, inner, flow_hash=0, redirected=False):
        outer = super().encapsulate(inner, flow_hash, redirected)
        return outer[:22] + b"\x08\x00" + outer[24:]
