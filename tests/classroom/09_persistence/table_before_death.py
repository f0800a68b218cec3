"""Asks the connection table first: a recorded connection lives, though its endpoint is dead.

criterion: one_connection_at_a_time
says: expected its fate: 'doomed', got 'lives'
"""

from maglev.persistence import BREAKS, DOOMED, LIVES, counted, expected, recorded_share


def fate(endpoint, dead, named, is_recorded):
    if is_recorded:
        return LIVES
    if endpoint in dead:
        return DOOMED
    return LIVES if named == endpoint else BREAKS
