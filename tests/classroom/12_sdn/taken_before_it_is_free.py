"""Gives a VIP the number of one that goes at the same time, whose group is still there.

criterion: numbers_stay
says: expected the groups' numbers: {'b': 2, 'c': 3}, got {'b': 2, 'c': 1}
"""


def number_groups(vips, numbers):
    kept = {vip: numbers[vip] for vip in vips if vip in numbers}
    for vip in sorted(vips):
        if vip not in kept:
            kept[vip] = next(number for number in range(1, 1000) if number not in kept.values())
    return kept
