"""Primes: a lookup table's size must be one, so that every skip visits every slot (Maglev §3.4).

Trial division is enough: table sizes stay in the millions. Apart from `hashing`, so that checking a configuration
does not load the compiler that building tables needs.
"""

from __future__ import annotations

from itertools import count
from math import isqrt


def is_prime(n: int) -> bool:
    """Says whether n is a prime, in O(sqrt(n))."""
    if n < 4:
        return n > 1
    return n % 2 == 1 and all(n % divisor for divisor in range(3, isqrt(n) + 1, 2))


def nearest_primes(n: int) -> tuple[int, ...]:
    """Returns the largest prime below n, where there is one, and the smallest prime above it."""
    below = next((candidate for candidate in range(n - 1, 1, -1) if is_prime(candidate)), None)
    above = next(candidate for candidate in count(max(n + 1, 2)) if is_prime(candidate))
    return (above,) if below is None else (below, above)
