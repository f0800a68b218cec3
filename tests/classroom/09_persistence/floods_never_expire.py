"""Has a flood keep every entry that it ever took: after a day of it any table is full.

criterion: floods_expire
says: 6,000 of 10,000 entries are the flood's at its end
"""

from maglev.persistence import counted, expected, fate


def recorded_share(capacity, flood_per_s, flood_s, idle_timeout_s, opened):
    return min(1.0, max(0.0, capacity - flood_per_s * flood_s) / opened) if opened else 1.0
