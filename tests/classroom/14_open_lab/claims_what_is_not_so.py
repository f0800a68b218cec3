"""Claims that the ring is more even than Maglev hashing.

criterion: beats_maglev
says: expected less than Maglev hashing's balance
"""

from maglev.baselines import ring_table as lookup_table
from maglev.contender import Claim, backend_of, connection_id


def claim():
    return Claim("balance", {"build time": 1000})
