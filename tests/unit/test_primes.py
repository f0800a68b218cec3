"""Primes, held to the sieve of Eratosthenes."""

from __future__ import annotations

import pytest

from maglev.primes import is_prime, nearest_primes

LIMIT = 20_000


def sieve(limit):
    candidates = set(range(2, limit))
    for n in range(2, limit):
        if n in candidates:
            candidates -= set(range(2 * n, limit, n))
    return candidates


PRIMES = sieve(LIMIT)


def test_agrees_with_the_sieve():
    assert {n for n in range(-10, LIMIT) if is_prime(n)} == PRIMES


def test_the_papers_table_sizes_are_primes():
    assert is_prime(65537)
    assert is_prime(655373)
    assert not is_prime(65537 * 3)


@pytest.mark.parametrize("n", [2, 3, 4, 8, 9, 13, 24, 1000, 7919])
def test_nearest_primes_are_the_neighbours_in_the_sieve(n):
    assert nearest_primes(n) == tuple(
        filter(None, (max((p for p in PRIMES if p < n), default=None), min(p for p in PRIMES if p > n)))
    )


def test_below_two_there_is_no_prime():
    assert nearest_primes(1) == nearest_primes(-5) == (2,)
    assert nearest_primes(2) == (3,)
