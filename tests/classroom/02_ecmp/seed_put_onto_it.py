"""Mixes the seed into the hash's last bits, when it is done: the next router has nearly the same points.

criterion: another_seed_is_another_hash
says: of them the first way again, got
"""

import zlib
from fractions import Fraction

from maglev.ecmp import hash_key


def point(flow, layer=4, seed=0):
    return Fraction((zlib.crc32(hash_key(flow, layer)) ^ seed) % (1 << 32), 1 << 32)
