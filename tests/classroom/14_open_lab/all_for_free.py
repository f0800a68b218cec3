"""Beats Maglev hashing at disruption, by rendezvous, and names no cost.

criterion: says_what_it_costs
says: expected that among the costs, got {}
"""

from maglev.baselines import rendezvous_table as lookup_table
from maglev.contender import Claim, backend_of, connection_id


def claim():
    return Claim("disruption", {})
