"""Judges what the exercise is about, with an oracle of its own: a naive one, Scapy, or a kernel.

A criterion is a function whose docstring is the sentence that a student reads. It gets the student's module, or a lab
in which their code runs, and a case: dice from the seed (`case.random`), steps that are told when something is wrong
(`case.step`, `case.call`), and what has to be so (`case.expect`, `case.expect_that`, `case.expect_error`).
"""

from __future__ import annotations

from typing import Any

from lab.classroom import Case, criterion

REFERENCE = "maglev.primes"  # the module that a solution stands for, or a tuple of several
LIVE = {"topology": "rack", "maglevs": 2, "endpoints": 2}  # what `maglab try` runs

HIGHEST = 200


@criterion(step=1, hint="which is the only even one?")
def primes_are_known(student: Any, case: Case) -> None:
    """Primes are told from other numbers."""
    for number in (2, 9, *case.random.sample(range(HIGHEST), 30)):
        case.expect(bool(case.call(student.is_prime, number)), number in _sieve(), f"whether {number} is a prime")


@criterion(step=2, hint="say without giving it away where to look")
def neighbours_are_found(student: Any, case: Case) -> None:
    """The nearest primes below and above a number are found; below 3 there is only one above."""
    for number in (0, 2, *case.random.sample(range(3, 190), 20)):
        primes = _sieve()
        expected = [max(prime for prime in primes if prime < number)] if number > 2 else []
        expected.append(min(prime for prime in primes if prime > number))
        case.expect(list(case.call(student.nearest_primes, number)), expected, f"the primes next to {number}")


@criterion(step=2, hint="what does a Maglev refuse to serve?", lab=LIVE)
def carries_connections(lab: Any, case: Case) -> None:
    """With it in the Maglevs, connections are carried. (A lab takes some five seconds: have three at most.)"""
    with lab.connections(10) as conns:
        conns.wait_settled()
        case.step("10 connections were opened")
        case.expect(conns.broken, 0, "the number of connections that broke")


def _sieve() -> set[int]:
    """Returns the primes below `HIGHEST`, by Eratosthenes' sieve: another way than the reference's."""
    left = set(range(2, HIGHEST))
    for number in range(2, HIGHEST):
        left -= set(range(2 * number, HIGHEST, number))
    return left
