"""Numbers the groups anew each time: when a VIP goes, others get other groups.

criterion: numbers_stay
says: expected the groups' numbers: {'b': 2}, got {'b': 1}
"""


def number_groups(vips, numbers):
    return {vip: number for number, vip in enumerate(sorted(vips), 1)}
