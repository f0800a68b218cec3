"""Forgets what overflows 16 bits.

criterion: one_s_complement_sum
says: expected the sum of RFC 1071's example, 0xddf2: 56818, got 56816
"""


def internet_sum(data):
    return sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)) & 0xFFFF
