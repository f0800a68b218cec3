"""Lets in what is for a VIP, whoever has sent it.

criterion: only_maglevs_and_only_vips
says: expected Discard(NOT_FROM_MAGLEV), got
"""

import maglev.engine.decapsulation
from maglev.flow import pack_address


class Gate(maglev.engine.decapsulation.Gate):
    def admit(self, received):
        return super().admit(received._replace(source=pack_address("10.1.1.2")))
