"""Takes all even numbers for composite: say in a sentence what is typically wrong.

criterion: primes_are_known
says: expected whether 2 is a prime: True, got False
"""


def is_prime(n):
    return n > 1 and n % 2 == 1 and all(n % divisor for divisor in range(3, n, 2))
