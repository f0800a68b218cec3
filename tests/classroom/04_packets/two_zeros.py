"""Leaves 0xffff where it means 0: over a sound header the sum is never 0.

criterion: one_s_complement_sum
says: words added, the overflow too: 0, got 65535
"""


def internet_sum(data):
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
