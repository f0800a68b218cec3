"""Scores by Python's own hash, which every process salts anew: Maglevs that start later disagree.

criterion: all_maglevs_agree
says: the Maglev that has just started to 10.
"""


def lookup_table(names, table_size=65537, weights=None):
    return [max(range(len(names)), key=lambda place: hash((names[place], slot))) for slot in range(table_size)]
