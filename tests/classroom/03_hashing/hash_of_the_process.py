"""Takes Python's own hash, which every process salts anew, for each backend's offset and skip.

criterion: others_agree
says: one Maglev gives slot
"""

from maglev.hashing import populate


def lookup_table(names, table_size=65537, weights=None):
    places = sorted(range(len(names)), key=lambda place: names[place])
    offsets = [hash(("offset", names[place])) % table_size for place in places]
    skips = [hash(("skip", names[place])) % (table_size - 1) + 1 for place in places]
    taken = populate(offsets, skips, table_size, None if weights is None else [weights[place] for place in places])
    return [places[turn] if turn >= 0 else -1 for turn in taken]
