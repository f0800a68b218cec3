"""Subtracts the flood from the table, and forgets that a table cannot hold more than it has room for.

criterion: what_a_flood_leaves
says: connections recorded, got -
"""

from maglev.persistence import counted, expected, fate


def recorded_share(capacity, flood_per_s, flood_s, idle_timeout_s, opened):
    return min(1.0, (capacity - flood_per_s * min(flood_s, idle_timeout_s)) / opened) if opened else 1.0
