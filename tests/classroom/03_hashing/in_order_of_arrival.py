"""Lets named backends take turns in the order in which they were listed.

criterion: order_does_not_matter
says: one Maglev gives slot
"""

from maglev.hashing import offset_and_skip, populate


def lookup_table(names, table_size=65537, weights=None):
    wishes = [offset_and_skip(name, table_size) for name in names]
    return populate([offset for offset, _ in wishes], [skip for _, skip in wishes], table_size, weights)
