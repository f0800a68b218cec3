"""Makes the table anew at each change.

criterion: tables_change_as_little_as_they_can
says: expected the number of buckets that move: 25, got
"""

from maglev.ecmp import resilient_table


def resilient_update(table, hops):
    return resilient_table(hops, len(table))
