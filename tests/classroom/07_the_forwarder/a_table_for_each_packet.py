"""Makes the lookup table anew for each packet, since endpoints may have changed.

criterion: not_much_slower_than_bare
says: expected less than 20 times the bare loop's time
"""

from maglev.engine.socket import run
from maglev.flow import pack_address, selection_hash, unpack_address
from maglev.forwarding import Forwarder as Given
from maglev.hashing import lookup_table


class Forwarder(Given):
    def choose(self, flow, selects, service, now, continues=False):
        names = [str(unpack_address(each)) for each in service.backends.members]
        table = lookup_table(names, len(service.backends.slots))
        return pack_address(names[table[selection_hash(flow) % len(table)]])
