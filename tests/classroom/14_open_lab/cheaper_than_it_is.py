"""Names its cost, and less of it than there is.

criterion: says_what_it_costs
says: expected at most 0.05, as the costs say
"""

from maglev.baselines import rendezvous_table as lookup_table
from maglev.contender import Claim, backend_of, connection_id


def claim():
    return Claim("disruption", {"balance": 0.05, "build time": 1000})
