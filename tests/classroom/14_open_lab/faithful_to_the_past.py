"""Changes nothing that need not change since the last table: the table then hangs on who was there before.

criterion: the_past_does_not_matter
says: the Maglev that saw four leave to 10.
"""

import maglev.hashing

holders = []


def lookup_table(names, table_size=65537, weights=None):
    fresh = [names[place] for place in maglev.hashing.lookup_table(names, table_size, weights)]
    kept = holders if len(holders) == table_size else fresh
    holders[:] = [old if old in names else new for old, new in zip(kept, fresh, strict=True)]
    return [names.index(name) for name in holders]
