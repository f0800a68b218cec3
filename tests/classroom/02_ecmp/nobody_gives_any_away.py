"""Moves buckets of who has left, and lets a new one wait until somebody leaves.

criterion: tables_change_as_little_as_they_can
says: expected equally many buckets each, or one more, got 34 m2, 33 m3, 33 m4
"""

from collections import Counter

from maglev.ecmp import resilient_table


def resilient_update(table, hops):
    updated, held = [], Counter(hop for hop in table if hop in hops)
    for hop in table:
        heir = hop if hop in hops else min(hops, key=lambda other: held[other])
        held[heir] += heir is not hop
        updated.append(heir)
    return tuple(updated)
