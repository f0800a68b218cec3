"""Numbers the names as it first sees them, and remembers: a Maglev that starts later sees them in another order.

criterion: all_maglevs_agree
says: the Maglev that has just started to 10.
"""

from hashlib import sha256

numbers = {}


def lookup_table(names, table_size=65537, weights=None):
    mine = [numbers.setdefault(name, len(numbers)) for name in names]

    def holder(slot):
        return max(range(len(names)), key=lambda place: sha256(b"%d %d" % (mine[place], slot)).digest())

    return [holder(slot) for slot in range(table_size)]
