"""Exercise NN: what it is about, in a line. Your code; `maglab check NN` judges it.

The functions are those of `maglev.primes`, with the same names and arguments, so that a lab can run with yours in their
place.
"""

from __future__ import annotations


def is_prime(n: int) -> bool:
    """Says whether n is a prime."""
    raise NotImplementedError("step 1: say in a few words what is to be done here")


def nearest_primes(n: int) -> tuple[int, ...]:
    """Returns the largest prime below n, where there is one, and the smallest prime above it."""
    raise NotImplementedError("step 2: each gap names its step, and what is missing")
