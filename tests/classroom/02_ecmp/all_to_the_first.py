"""Gives all buckets of who has left to the first who is there.

criterion: tables_change_as_little_as_they_can
says: expected equally many buckets each, or one more, got
"""

from maglev.ecmp import resilient_table


def resilient_update(table, hops):
    return tuple(hop if hop in hops else hops[0] for hop in table)
